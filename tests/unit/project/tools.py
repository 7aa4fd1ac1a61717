"""The commands of other tools that documents show, with the options that they take.

From the tools' own reference; of `az`, the source of azure-cli 2.91 (`grafana`, `log-analytics query` and `aks mesh
enable-istio-cni` are of its extensions). What is not here is a mistake until somebody has looked it up and added it.
`--output`, `--query` and `--subscription` are every `az` command's.
"""

import re
import shlex
from collections.abc import Iterator

_KNOWN = """
az account get-access-token: --resource --scope --tenant
az account set:
az account show:
az acr import: --image --name --source --force
az acr login: --name
az acr repository show: --image --name
az acr show: --name --resource-group
az ad app create: --display-name --sign-in-audience
az ad app update: --id --identifier-uris --set
az ad group create: --display-name --mail-nickname
az ad group member add: --group --member-id
az ad signed-in-user show:
az ad sp create: --id
az aks get-credentials: --name --resource-group
az aks install-cli:
az aks mesh enable-istio-cni: --name --resource-group
az aks nodepool update: --cluster-name --disable-cluster-autoscaler --name --resource-group
az aks stop: --name --resource-group
az bicep:
az cosmosdb list: --resource-group
az cosmosdb restore: --account-name --location --resource-group --restore-timestamp --target-database-account-name
az cosmosdb sql container list: --account-name --database-name --resource-group
az cosmosdb sql database delete: --account-name --name --resource-group
az cosmosdb sql database restore: --account-name --name --resource-group --restore-timestamp
az cosmosdb sql restorable-database list: --instance-id --location
az deployment group create: --parameters --resource-group --template-file
az deployment sub create: --location --name --parameters --template-file
az deployment sub delete: --name
az deployment sub show: --name
az feature register: --name --namespace
az functionapp deployment source config-zip: --build-remote --name --resource-group --src
az functionapp function keys set: --function-name --key-name --key-value --name --resource-group
az functionapp function list: --name --resource-group
az functionapp keys list: --name --resource-group
az functionapp keys set: --key-name --key-type --name --resource-group
az functionapp start: --name --resource-group
az functionapp stop: --name --resource-group
az grafana dashboard import: --definition --name
az group create: --location --name
az group delete: --name
az identity create: --location --name --resource-group
az identity federated-credential create: --audiences --identity-name --issuer --name --resource-group --subject
az identity show: --name --resource-group
az keyvault certificate import: --file --name --vault-name
az keyvault recover: --name
az keyvault secret recover: --name --vault-name
az keyvault secret set: --file --name --vault-name
az login:
az monitor log-analytics query: --analytics-query --workspace
az monitor log-analytics workspace table update: --name --plan --resource-group --workspace-name
az provider register: --namespace --wait
az role assignment create: --assignee-object-id --assignee-principal-type --condition --role --scope
az role definition create: --role-definition
az storage account failover: --name
az storage account show: --expand --name
az storage blob download-batch: --account-name --auth-mode --destination --source
az storage blob undelete: --account-name --auth-mode --container-name --name
az storage container immutability-policy lock: --account-name --container-name --if-match
az storage container immutability-policy show: --account-name --container-name
az storage container list: --account-name --auth-mode --include-deleted
az storage container restore: --account-name --auth-mode --deleted-version --name
cosign verify: --certificate-identity --certificate-oidc-issuer
docker build: --build-arg --file --tag
docker buildx imagetools inspect: --format
docker push:
kubectl apply: -f -k
kubectl create secret generic: --from-file
kubectl delete: --cascade -l
kubectl describe:
kubectl diff: -k
kubectl get: -l -o --show-labels
kubectl kustomize:
kubectl label: -l
kubectl logs: --tail
kubectl patch: --patch
kubectl port-forward:
kubectl rollout status:
kubectl rollout undo: --to-revision
kubectl top:
kubelogin convert-kubeconfig: -l
kustomize edit set image:
"""
KNOWN = {
    tuple(command.split()): frozenset(options.split())
    for command, _, options in (line.partition(":") for line in _KNOWN.strip().splitlines())
}
_OF_ALL = {
    "az": {"--output", "--query", "--subscription"},
    "kubectl": {"-n", "--namespace"},
}
_TOOL = re.compile(r"(?:^|[\s(|;])((?:az|cosign|docker|kubectl|kubelogin|kustomize) [a-z-][^|;()&`]*)")
_WORD = re.compile(r"[a-z][a-z0-9-]*")


def unknown(line: str) -> Iterator[str]:
    """What of a line of code is no command, or no option of it, of the tools that are known."""
    for shown in _TOOL.findall(line):
        words = _split(shown)
        tool = words.pop(0)
        plain, options = _parted(words, _OF_ALL.get(tool, set()))
        command = max((one for one in KNOWN if (tool, *plain)[: len(one)] == one), key=len, default=None)
        if command is None:
            yield f"{tool} {' '.join(plain)}"
            continue
        taken = KNOWN[command] | _OF_ALL.get(tool, set())
        yield from (f"{' '.join(command)} {one}" for one in options if one not in taken)


def _parted(words: list[str], with_value: set[str]) -> tuple[list[str], list[str]]:
    """The words of a command up to its first argument, and its options."""
    plain: list[str] = []
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    at = 0
    while at < len(words):
        if words[at] in with_value:
            at += 2
            continue
        if not _WORD.fullmatch(words[at]):
            break
        plain.append(words[at])
        at += 1
    return plain, options


def _split(shown: str) -> list[str]:
    try:
        return shlex.split(shown)
    except ValueError:
        return shown.split()
