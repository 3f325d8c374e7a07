"""One file per noun of the API; each task is a thin function for Celery and a plain one."""
