"""`disp reconcile`: one round of the repairs that a gateway makes all the time."""

from storage.interfaces import Reconciled


def reconcile_once() -> Reconciled:
    """Repair, hint at what waits and sweep uploads; webhooks are left to whoever sends them."""
    from api.app import open_gateway
    from api.reconciler import Reconciler
    from api.settings import GatewaySettings
    from storage.environment import read_secret_files

    read_secret_files()
    settings = GatewaySettings()  # type: ignore[call-arg]  # the environment
    gateway = open_gateway(settings)
    try:
        return Reconciler(
            gateway, period_s=settings.reconcile_s, max_losses=settings.max_losses
        ).reconcile()
    finally:
        gateway.jobs.close()
