"""The functions app: registers the blueprints of functions/, nothing else."""

import azure.functions as func

from functions import (
    admin,
    admin_aliases,
    admin_models,
    admin_rollbacks,
    admin_rollouts,
    alerts,
    aliases,
    approvals,
    dead_letters,
    events,
    integrity,
    metrics,
    plans,
    predictions,
    registration,
    replays,
    retention,
    rollouts,
    sweeping,
    validation,
    watching,
)

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
for blueprint in (
    registration.bp,
    validation.bp,
    rollouts.bp,
    sweeping.bp,
    watching.bp,
    admin.bp,
    admin_models.bp,
    admin_aliases.bp,
    admin_rollouts.bp,
    admin_rollbacks.bp,
    plans.bp,
    aliases.bp,
    approvals.bp,
    dead_letters.bp,
    events.bp,
    integrity.bp,
    retention.bp,
    alerts.bp,
    predictions.bp,
    replays.bp,
    metrics.bp,
):
    app.register_functions(blueprint)
