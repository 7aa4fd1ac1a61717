metadata description = 'Where logs, spans and metrics go, and how the cluster\'s metrics come there. Nobody sends by key.'

param location string
param tags object
param token string
param retentionDays int

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: 'log-slipway-${token}'
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: retentionDays
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
    publicNetworkAccessForIngestion: 'Enabled'
    publicNetworkAccessForQuery: 'Enabled'
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-slipway-${token}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    IngestionMode: 'LogAnalytics'
    DisableLocalAuth: true
    publicNetworkAccessForIngestion: 'Enabled'
    publicNetworkAccessForQuery: 'Enabled'
  }
}

resource prometheus 'Microsoft.Monitor/accounts@2025-10-03' = {
  name: 'amw-slipway-${token}'
  location: location
  tags: tags
  properties: { publicNetworkAccess: 'Enabled' }
}

resource metricsEndpoint 'Microsoft.Insights/dataCollectionEndpoints@2024-03-11' = {
  name: 'dce-slipway-${token}'
  location: location
  tags: tags
  kind: 'Linux'
  properties: {
    networkAcls: { publicNetworkAccess: 'Enabled' }
  }
}

resource metricsRule 'Microsoft.Insights/dataCollectionRules@2024-03-11' = {
  name: 'dcr-slipway-metrics-${token}'
  location: location
  tags: tags
  kind: 'Linux'
  properties: {
    dataCollectionEndpointId: metricsEndpoint.id
    dataSources: {
      prometheusForwarder: [
        {
          name: 'scraped'
          streams: ['Microsoft-PrometheusMetrics']
          labelIncludeFilter: {}
        }
      ]
    }
    destinations: {
      monitoringAccounts: [{ name: 'prometheus', accountResourceId: prometheus.id }]
    }
    dataFlows: [
      { streams: ['Microsoft-PrometheusMetrics'], destinations: ['prometheus'] }
    ]
  }
}

// OTLP straight into Application Insights, for the cluster's collector. The form is that of Microsoft's own template, as
// public repositories have it; it is not among the models that properties are held against here.
resource tracesEndpoint 'Microsoft.Insights/dataCollectionEndpoints@2024-03-11' = {
  name: 'dce-slipway-traces-${token}'
  location: location
  tags: tags
  properties: {
    networkAcls: { publicNetworkAccess: 'Enabled' }
  }
}

resource tracesRule 'Microsoft.Insights/dataCollectionRules@2024-03-11' = {
  name: 'dcr-slipway-traces-${token}'
  location: location
  tags: tags
  properties: {
    dataCollectionEndpointId: tracesEndpoint.id
    references: {
      applicationInsights: [{ name: 'insights', resourceId: insights.id }]
    }
    directDataSources: {
      otelTraces: [
        {
          name: 'spans'
          streams: ['Microsoft-OTel-Traces-Spans', 'Microsoft-OTel-Traces-Events', 'Microsoft-OTel-Traces-Resources']
          enrichWithReference: 'insights'
          enrichWithResourceAttributes: ['*']
          replaceResourceIdWithReference: true
        }
      ]
    }
    destinations: {
      logAnalytics: [{ name: 'workspace', workspaceResourceId: workspace.id }]
    }
    dataFlows: [
      {
        streams: ['Microsoft-OTel-Traces-Spans', 'Microsoft-OTel-Traces-Events', 'Microsoft-OTel-Traces-Resources']
        destinations: ['workspace']
      }
    ]
  }
}

// Who asked for which logs is itself looked at, where somebody must answer for it.
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: workspace
  name: 'to-workspace'
  properties: {
    workspaceId: workspace.id
    logs: [
      { category: 'Audit', enabled: true }
    ]
  }
}

output workspaceId string = workspace.id
output workspaceName string = workspace.name
output workspaceCustomerId string = workspace.properties.customerId
output insightsId string = insights.id
output insightsName string = insights.name
output prometheusId string = prometheus.id
output prometheusName string = prometheus.name
output prometheusUrl string = prometheus.properties.metrics.prometheusQueryEndpoint
output metricsRuleId string = metricsRule.id
output tracesRuleName string = tracesRule.name
output tracesUrl string = '${tracesEndpoint.properties.logsIngestion.endpoint}/datacollectionRules/${tracesRule.properties.immutableId}/streams/Microsoft-OTLP-Traces/otlp/v1/traces'
