metadata description = 'The alerts of infra/observability, as Azure\'s managed Prometheus has them: the files are read, not copied.'

param location string
param tags object
param prometheusId string
param actionGroupId string

var controlPlane = any(loadYamlContent('../../observability/control-plane-alerts.yaml'))
var models = any(loadYamlContent('../../observability/model-alerts.yaml'))
var rollouts = any(loadYamlContent('../../observability/rollout-alerts.yaml'))
var cluster = any(loadYamlContent('../../observability/cluster-alerts.yaml'))
var objectives = any(loadYamlContent('../../observability/slo-alerts.yaml'))
var groups = flatten([controlPlane.groups, models.groups, rollouts.groups, cluster.groups, objectives.groups])
var severities = { critical: 1, warning: 2, info: 3 }

resource alerts 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = [for group in groups: {
  name: group.name
  location: location
  tags: tags
  properties: {
    enabled: true
    interval: 'PT1M'
    scopes: [prometheusId]
    rules: [for rule in group.rules: {
      alert: rule.alert
      enabled: true
      expression: rule.expr
      for: 'PT${toUpper(rule.?for ?? '0m')}'
      severity: severities[rule.labels.severity]
      labels: rule.labels
      annotations: rule.annotations
      actions: [{ actionGroupId: actionGroupId }]
      resolveConfiguration: { autoResolved: true, timeToResolve: 'PT10M' }
    }]
  }
}]
