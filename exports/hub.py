"""An exported folder as a repository of the Hugging Face hub."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.errors import HTTPError as NetworkError  # type: ignore[attr-defined]  # of the client it has chosen
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from run_store import UserError

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"
_BY_STATUS = {
    401: f"the hub does not know the token: {LOG_IN}",
    403: f"the token may not write there: choose a repository of your own or of an organisation of yours, or {LOG_IN}",
}


@dataclass(frozen=True)
class HubRepository:
    """Where a model goes. The address of the hub (HF_ENDPOINT) and the token (HF_TOKEN, or what `hf auth login` has
    left) are found as huggingface_hub finds them.

    Attributes:
        name: OWNER/NAME.
        private: makes a new one private; one that is there and public is refused.
        revision: branch, made if it is not there; by default the main one.
    """

    name: str
    private: bool = False
    revision: str | None = None

    def check(self) -> None:
        """Finds what can be found without a network, before anything is made.

        Raises:
            UserError: the name is malformed, or there is no token.
        """
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise UserError(f"push_to_hub: {self.name} is no name of a repository ({_line(error)})") from error
        if "/" not in self.name:
            raise UserError(f"push_to_hub: {self.name} does not say whose repository it is: use OWNER/{self.name}")
        if get_token() is None:
            raise UserError(f"push_to_hub: there is no token for {constants.ENDPOINT}: {LOG_IN}")

    def push(self, folder: Path, message: str) -> str:
        """Puts all of a folder up in one commit. The folder stays as it is, whatever happens.

        Args:
            folder: with the model card.
            message: of the commit.

        Returns:
            The address of what was pushed.

        Raises:
            UserError: it could not be pushed; says how to try again.
        """
        try:
            return self._pushed(folder, message)
        # RuntimeError is what its uploads of large files end in
        except (OSError, NetworkError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{folder} could not be pushed to {self.name}: {_reason(error)}; all of it is still there: "
                f"`{self._again(folder)}` tries again"
            ) from error

    def _pushed(self, folder: Path, message: str) -> str:
        api = HfApi()
        url = api.create_repo(self.name, private=self.private or None, exist_ok=True)
        if self.private and not api.repo_info(self.name).private:
            raise ValueError("there is one of that name that everybody can read, and private was asked for")
        if self.revision is not None:
            api.create_branch(self.name, branch=self.revision, exist_ok=True)
        api.upload_folder(repo_id=self.name, folder_path=folder, revision=self.revision, commit_message=message)
        return f"{url}" if self.revision is None else f"{url}/tree/{self.revision}"

    def _again(self, folder: Path) -> str:
        options = [*(["--private"] if self.private else []), *(["--revision", self.revision] if self.revision else [])]
        return shlex.join(["hf", "upload", self.name, str(folder), ".", *options])


def _reason(error: BaseException) -> str:
    """In a clause; what a library has wrapped around the cause says less than it."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return _BY_STATUS.get(status) or f"the hub answered {status} ({error.server_message or _line(error)})"
    if isinstance(error, NetworkError):
        return f"{constants.ENDPOINT} cannot be reached ({_line(error) or type(error).__name__})"
    return _line(error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300]
