metadata description = 'What people look at: the workbook, and the queries of infra/observability by name in Log Analytics.'

param location string
param tags object
param workspaceId string

var queries = [
  { name: 'compare-versions', text: loadTextContent('../../observability/queries/compare-versions.kql') }
  { name: 'cost-of-logs', text: loadTextContent('../../observability/queries/cost-of-logs.kql') }
  { name: 'documents-throughput', text: loadTextContent('../../observability/queries/documents-throughput.kql') }
  { name: 'errors-by-version', text: loadTextContent('../../observability/queries/errors-by-version.kql') }
  { name: 'failed-invocations', text: loadTextContent('../../observability/queries/failed-invocations.kql') }
  { name: 'kube-warnings', text: loadTextContent('../../observability/queries/kube-warnings.kql') }
  { name: 'log-lines', text: loadTextContent('../../observability/queries/log-lines.kql') }
  { name: 'model-performance', text: loadTextContent('../../observability/queries/model-performance.kql') }
  { name: 'nodes', text: loadTextContent('../../observability/queries/nodes.kql') }
  { name: 'one-trace', text: loadTextContent('../../observability/queries/one-trace.kql') }
  { name: 'pod-log-lines', text: loadTextContent('../../observability/queries/pod-log-lines.kql') }
  { name: 'pods', text: loadTextContent('../../observability/queries/pods.kql') }
  { name: 'pods-by-hour', text: loadTextContent('../../observability/queries/pods-by-hour.kql') }
  { name: 'slow-steps', text: loadTextContent('../../observability/queries/slow-steps.kql') }
  { name: 'story-of-a-version', text: loadTextContent('../../observability/queries/story-of-a-version.kql') }
]

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'slipway-workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'Slipway'
    category: 'workbook'
    sourceId: toLower(workspaceId)
    serializedData: loadTextContent('../../observability/workbook.json')
  }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: last(split(workspaceId, '/'))
}

resource saved 'Microsoft.OperationalInsights/workspaces/savedSearches@2025-07-01' = [for query in queries: {
  parent: workspace
  name: 'slipway-${query.name}'
  properties: {
    category: 'Slipway'
    displayName: query.name
    query: query.text
    version: 2
  }
}]
