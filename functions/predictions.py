"""The admin API: where a prediction came from."""

from typing import Any

import azure.functions as func

from functions._http import answering
from functions._services import services
from shared.routing.prediction import PredictionId

bp = func.Blueprint()


@bp.function_name("get_prediction")
@bp.route("predictions/{prediction_id}", methods=["GET"])
@answering
def get_prediction(req: func.HttpRequest) -> dict[str, Any]:
    """A prediction's lineage, from its id."""
    claim = PredictionId.parse(req.route_params["prediction_id"])
    return services().lineage.lineage(claim).model_dump(mode="json")
