from cli.run_verbs.verbs import run

__all__ = ["run"]
