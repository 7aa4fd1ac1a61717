#!/bin/sh
# azd's, before it makes the resources: the parameters of the environment, in the file that azd reads.
set -eu
: "${AZURE_ENV_NAME:?azd names its environment in it: run this by azd}"

bicep=$(dirname "$0")/../bicep
parameters=$bicep/main.parameters.$AZURE_ENV_NAME.json
if [ ! -f "$parameters" ]; then
    echo "the environment '$AZURE_ENV_NAME' has no main.parameters.$AZURE_ENV_NAME.json: use dev, staging or production (azd env new staging)" >&2
    exit 1
fi
cp "$parameters" "$bicep/main.parameters.json"
