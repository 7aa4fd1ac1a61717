#!/usr/bin/env bash
# Prints a token for the application SLIPWAY_AUDIENCE, as a job of GitHub Actions that may sign in to Azure.
#
# Each run asks GitHub anew for the statement that Entra takes: azure/login's own is good for minutes, a token for about an
# hour, and a rollout may be followed for longer. Nothing secret stands in a command line.
set -euo pipefail

client=${AZURE_CLIENT_ID:?} tenant=${AZURE_TENANT_ID:?} audience=${SLIPWAY_AUDIENCE:?}
authority=${AZURE_AUTHORITY_HOST:-https://login.microsoftonline.com}
asked=(curl --fail --silent --show-error --max-time 30 --retry 3)

statement=$("${asked[@]}" --header @<(printf 'Authorization: Bearer %s' "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:?}") \
    "${ACTIONS_ID_TOKEN_REQUEST_URL:?}&audience=api://AzureADTokenExchange" | jq --exit-status --raw-output .value)
answer=$("${asked[@]}" "${authority%/}/$tenant/oauth2/v2.0/token" \
    --data-urlencode grant_type=client_credentials --data-urlencode "client_id=$client" \
    --data-urlencode "scope=$audience/.default" \
    --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
    --data-urlencode client_assertion@<(printf '%s' "$statement"))
jq --exit-status --raw-output .access_token <<<"$answer"
