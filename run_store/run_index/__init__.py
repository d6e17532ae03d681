from run_store.run_index.index import INDEX_NAME, RunIndex
from run_store.run_index.queries import Order, RunQuery
from run_store.run_index.rows import IndexedRun, RunSummary
from run_store.run_index.using import answered, noted

__all__ = ["INDEX_NAME", "IndexedRun", "Order", "RunIndex", "RunQuery", "RunSummary", "answered", "noted"]
