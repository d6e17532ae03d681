from remote_files.folder import PARTIAL, RemoteFolder
from remote_files.retries import Retries
from remote_files.urls import check_url, is_url, shown

__all__ = ["PARTIAL", "RemoteFolder", "Retries", "check_url", "is_url", "shown"]
