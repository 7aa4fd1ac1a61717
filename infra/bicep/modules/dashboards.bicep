metadata description = 'What people look at: a dashboard of what comes first, the workbook, and the queries of infra/observability by name.'

param location string
param tags object
param token string
param environmentName string
param workspaceId string

@description('What is alerted on of Azure\'s own metrics, as modules/alerts.bicep has it; `shown` are the dimensions as a chart filters by them.')
param metrics array

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

// What somebody on call looks at first: where to go, what Azure's own metrics say of all that is alerted on, what failed.
var grids = [
  { title: 'Invocations that failed', query: loadTextContent('../../observability/queries/failed-invocations.kql') }
  { title: 'Warnings and errors of the functions app', query: loadTextContent('../../observability/queries/log-lines.kql') }
  { title: 'Versions that fail predictions', query: loadTextContent('../../observability/queries/errors-by-version.kql') }
  { title: 'What Kubernetes warns of', query: loadTextContent('../../observability/queries/kube-warnings.kql') }
  { title: 'Pods of the last hour', query: loadTextContent('../../observability/queries/pods.kql') }
  { title: 'Nodes', query: loadTextContent('../../observability/queries/nodes.kql') }
]
// How the portal numbers ways to add up, and operators.
var aggregations = { Total: 1, Average: 4, Count: 7 }
var note = {
  position: { x: 0, y: 0, colSpan: 12, rowSpan: 3 }
  metadata: any({
    type: 'Extension/HubsExtension/PartType/MarkdownPart'
    inputs: []
    settings: { content: { settings: {
      title: 'Slipway (${environmentName})'
      subtitle: 'What to look at first'
      content: loadTextContent('../../observability/on-call.md')
    } } }
  })
}
var charts = [for (one, index) in metrics: {
  position: { x: 4 * index % 12, y: index / 3 * 3 + 3, colSpan: 4, rowSpan: 3 }
  metadata: any({
    type: 'Extension/HubsExtension/PartType/MonitorChartPart'
    inputs: [
      { name: 'sharedTimeRange', isOptional: true }
      { name: 'options', isOptional: true }
    ]
    settings: { content: { options: { chart: {
      title: one.description
      titleKind: 2
      metrics: [
        {
          resourceMetadata: { id: one.scope }
          name: one.metric
          namespace: one.namespace
          aggregationType: aggregations[one.aggregation]
        }
      ]
      filterCollection: { filters: one.shown }
      visualization: { chartType: 2 }
    } } } }
  })
}]
var tables = [for (one, index) in grids: {
  position: { x: 6 * index % 12, y: index / 2 * 4 + 9, colSpan: 6, rowSpan: 4 }
  metadata: any({
    type: 'Extension/Microsoft_OperationsManagementSuite_Workspace/PartType/LogsDashboardPart'
    inputs: [
      { name: 'Scope', value: { resourceIds: [workspaceId] } }
      { name: 'PartId', value: guid(resourceGroup().id, one.title) }
      { name: 'Version', value: '2.0' }
      { name: 'TimeRange', value: 'P1D' }
      { name: 'Query', value: one.query }
      { name: 'ControlType', value: 'AnalyticsGrid' }
      { name: 'PartTitle', value: one.title }
      { name: 'PartSubTitle', value: 'Slipway (${environmentName})' }
      { name: 'IsQueryContainTimeRange', value: true }
    ]
    settings: {}
  })
}]

resource dashboard 'Microsoft.Portal/dashboards@2020-09-01-preview' = {
  name: 'dash-slipway-${token}'
  location: location
  tags: union(tags, { 'hidden-title': 'Slipway (${environmentName})' })
  properties: {
    lenses: [
      { order: 0, parts: concat([note], charts, tables) }
    ]
    metadata: {
      model: {
        timeRange: {
          type: 'MsPortalFx.Composition.Configuration.ValueTypes.TimeRange'
          value: { relative: { duration: 24, timeUnit: 1 } }
        }
      }
    }
  }
}
