metadata description = 'Who hears of what: alerts of metrics, of logs and of Azure\'s own resources, all to one action group.'

param location string
param tags object
param token string
param environmentName string

@description('Who is written to. Empty: alerts fire, and stand in the portal alone.')
param emails array

@description('A relay that is told too: its url, and of the Entra application that it takes tokens of, objectId and audience. Azure Monitor signs in to it, so that nothing here is secret.')
param webhooks array

param insightsId string
param workspaceId string
param prometheusId string
param clusterId string
param functionsId string
param cosmosId string
param storageId string
param topicId string

@description('Whether the functions app sends its spans: without them an alert of spans would tell of an outage for ever.')
param traceToInsights bool

var metrics = [
  {
    name: 'cosmos-throttles'
    description: 'Documents are refused for want of throughput: what Slipway saves is late. Raise cosmosMaxThroughput.'
    scope: cosmosId
    severity: 2
    namespace: 'Microsoft.DocumentDB/databaseAccounts'
    metric: 'TotalRequests'
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 50
    dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
    shown: [{ key: 'StatusCode', operator: 0, values: ['429'] }]
  }
  {
    name: 'cosmos-unavailable'
    description: 'The document database does not answer: no rollout moves, and model servers go on with their last plan.'
    scope: cosmosId
    severity: 1
    namespace: 'Microsoft.DocumentDB/databaseAccounts'
    metric: 'ServiceAvailability'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 99
    dimensions: []
    shown: []
  }
  {
    name: 'storage-unavailable'
    description: 'Storage does not answer: neither drops nor plans nor telemetry go through.'
    scope: storageId
    severity: 1
    namespace: 'Microsoft.Storage/storageAccounts'
    metric: 'Availability'
    aggregation: 'Average'
    operator: 'LessThan'
    threshold: 99
    dimensions: []
    shown: []
  }
  {
    name: 'drops-undelivered'
    description: 'Events of drops do not reach their queue: each drop waits ten minutes or more for the sweep. The topic\'s roles, and the account\'s firewall.'
    scope: topicId
    severity: 2
    namespace: 'Microsoft.EventGrid/systemTopics'
    metric: 'DeliveryAttemptFailCount'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 5
    dimensions: []
    shown: []
  }
  {
    name: 'nodes-without-memory'
    description: 'Nodes are short of memory: pods will be evicted. More or larger nodes are needed.'
    scope: clusterId
    severity: 2
    namespace: 'Microsoft.ContainerService/managedClusters'
    metric: 'node_memory_working_set_percentage'
    aggregation: 'Average'
    operator: 'GreaterThan'
    threshold: 90
    dimensions: [{ name: 'nodepool', operator: 'Include', values: ['*'] }]
    shown: []
  }
  {
    name: 'nodes-not-ready'
    description: 'A node is not ready: its pods move to others, if there is room.'
    scope: clusterId
    severity: 2
    namespace: 'Microsoft.ContainerService/managedClusters'
    metric: 'kube_node_status_condition'
    aggregation: 'Average'
    operator: 'GreaterThan'
    threshold: 0
    dimensions: [
      { name: 'condition', operator: 'Include', values: ['Ready'] }
      { name: 'status2', operator: 'Include', values: ['NotReady'] }
    ]
    shown: [
      { key: 'condition', operator: 0, values: ['Ready'] }
      { key: 'status2', operator: 0, values: ['NotReady'] }
    ]
  }
]
var logs = [
  {
    name: 'invocations-fail'
    title: 'Functions of Slipway fail'
    severity: 2
    threshold: 20
    enabled: traceToInsights
    query: loadTextContent('../../observability/log-alerts/invocations-fail.kql')
  }
  {
    name: 'nothing-invoked'
    title: 'No function of Slipway runs'
    severity: 1
    threshold: 0
    enabled: traceToInsights
    query: loadTextContent('../../observability/log-alerts/nothing-invoked.kql')
  }
  {
    name: 'error-lines'
    title: 'The functions app logs errors'
    severity: 2
    threshold: 10
    enabled: true
    query: loadTextContent('../../observability/log-alerts/error-lines.kql')
  }
]

resource actionGroup 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-slipway-${token}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'slipway'
    emailReceivers: [for (email, index) in emails: {
      name: 'email-${index}'
      emailAddress: email
      useCommonAlertSchema: true
    }]
    webhookReceivers: [for (webhook, index) in webhooks: {
      name: 'webhook-${index}'
      serviceUri: webhook.url
      useAadAuth: true
      objectId: webhook.objectId
      identifierUri: webhook.audience
      tenantId: tenant().tenantId
      useCommonAlertSchema: true
    }]
  }
}

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [for one in metrics: {
  name: 'slipway-${environmentName}-${one.name}'
  location: 'global'
  tags: tags
  properties: {
    description: one.description
    severity: one.severity
    enabled: true
    autoMitigate: true
    scopes: [one.scope]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: one.name
          metricNamespace: one.namespace
          metricName: one.metric
          timeAggregation: one.aggregation
          operator: one.operator
          threshold: one.threshold
          dimensions: one.dimensions
        }
      ]
    }
    actions: [{ actionGroupId: actionGroup.id }]
  }
}]

resource logAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for one in logs: {
  name: 'slipway-${environmentName}-${one.name}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${one.title} (${environmentName})'
    severity: one.severity
    enabled: one.enabled
    autoMitigate: true
    scopes: [workspaceId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      allOf: [
        {
          query: one.query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: one.threshold
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: {
      actionGroups: [actionGroup.id]
      customProperties: { functions: functionsId, insights: insightsId }
    }
  }
}]

module prometheus 'prometheus.bicep' = {
  name: 'prometheus'
  params: {
    location: location
    tags: tags
    prometheusId: prometheusId
    actionGroupId: actionGroup.id
  }
}

module dashboards 'dashboards.bicep' = {
  name: 'dashboards'
  params: {
    location: location
    tags: tags
    token: token
    environmentName: environmentName
    workspaceId: workspaceId
    metrics: metrics
  }
}

output actionGroupId string = actionGroup.id
