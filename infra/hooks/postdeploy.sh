#!/bin/sh
# azd's, after it deployed the app: the second step, by what the first one put out, which azd has in the environment.
# The topic's roles take some minutes: what is refused until then is asked for again.
set -eu
: "${AZURE_ENV_NAME:?azd names its environment in it: run this by azd}"
: "${RESOURCE_GROUP:?an output of main.bicep}" "${EVENTS_TOPIC_NAME:?an output of main.bicep}" "${STORAGE_NAME:?an output of main.bicep}"

cd "$(dirname "$0")/../.."
tries=${TRIES:-10}
until az deployment group create --name "slipway-$AZURE_ENV_NAME-drops" --resource-group "$RESOURCE_GROUP" \
    --template-file infra/bicep/eventgrid.bicep --parameters "topicName=$EVENTS_TOPIC_NAME" "storageName=$STORAGE_NAME"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
        echo "the events were refused again and again: run infra/hooks/postdeploy.sh by 'azd hooks run postdeploy'" >&2
        exit 1
    fi
    sleep "${WAIT_S:-30}"
done
