"""`disp reconcile`: one round of the repairs that gateways and runners make all the time."""

from storage.interfaces import Reconciled


def reconcile_once(database_url: str, broker_url: str | None, max_losses: int) -> Reconciled:
    """Repair, and hint at what waits; webhooks are left to whoever sends them."""
    from api.queue import open_queue
    from api.reconciler import Reconciler
    from storage.connect import open_job_store
    from webhooks.egress import Egress
    from webhooks.sender import Sender

    store = open_job_store(database_url)
    try:
        return Reconciler(
            store,
            open_queue(broker_url),
            period_s=1.0,
            max_losses=max_losses,
            sender=Sender(store, Egress()),
        ).reconcile()
    finally:
        store.close()
