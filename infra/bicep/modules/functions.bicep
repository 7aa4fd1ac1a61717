metadata description = 'The control plane: the functions app on Flex Consumption, who it is, and what it is told.'

param location string
param tags object
param token string
param environmentName string
param subnetId string
param identityId string
param identityClientId string
param storageName string
param cosmosName string
param vaultName string
param insightsName string
param workspaceId string
param workspaceCustomerId string
param prometheusUrl string
param zoneRedundant bool
param alwaysReady int

@description('Functions that messages or timers start, of which as many instances are always ready.')
param alwaysReadyNames array

param maxInstances int
param memoryMB int
param httpConcurrency int

@description('Address ranges that may reach the admin API. Empty: everywhere.')
param ipRanges array

@description('The application that callers sign in to, beside the function key. Empty: none.')
param authClientId string

param approvalKeySecretName string
param eventSinksSecretName string
param alertSinksSecretName string
param traceToInsights bool

// Flex Consumption scales what HTTP calls as one group and each other function by itself.
var readyFunctions = [for one in alwaysReadyNames: { name: 'function:${one}', instanceCount: alwaysReady }]
var name = 'func-slipway-${token}'
var secrets = 'https://${vaultName}${environment().suffixes.keyvaultDns}/secrets'

resource storage 'Microsoft.Storage/storageAccounts@2025-08-01' existing = {
  name: storageName
}

resource cosmos 'Microsoft.DocumentDB/databaseAccounts@2026-03-15' existing = {
  name: cosmosName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  // checkov:skip=CKV_AZURE_225:zones are a parameter; production has them
  name: 'plan-slipway-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  // checkov:skip=CKV_AZURE_222:people and pipelines call the admin API from outside, by a key and, if wanted, sign-in; adminIpRanges narrows from where
  // checkov:skip=CKV_AZURE_17:callers have a key and, if wanted, a token; no certificates
  // checkov:skip=CKV_AZURE_212:Flex Consumption has alwaysReady instead, which is a parameter
  // checkov:skip=CKV_AZURE_213:Flex Consumption replaces instances by itself
  name: name
  location: location
  tags: tags
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: subnetId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}deployments'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: { name: 'python', version: '3.13' }
      scaleAndConcurrency: {
        instanceMemoryMB: memoryMB
        maximumInstanceCount: maxInstances
        alwaysReady: alwaysReady > 0 ? concat([{ name: 'http', instanceCount: alwaysReady }], readyFunctions) : []
        // Of HTTP alone: how many messages an instance takes at a time is in host.json (batchSize, newBatchThreshold).
        triggers: { http: { perInstanceConcurrency: httpConcurrency } }
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      ipSecurityRestrictionsDefaultAction: empty(ipRanges) ? 'Allow' : 'Deny'
      ipSecurityRestrictions: [for (one, index) in ipRanges: {
        name: 'range-${index}'
        action: 'Allow'
        priority: 100 + index
        ipAddress: one
      }]
    }
  }
}

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  // checkov:skip=CKV_AZURE_66:settings of an app, no app
  // checkov:skip=CKV_AZURE_63:settings of an app, no app
  // checkov:skip=CKV_AZURE_222:settings of an app, no app
  // checkov:skip=CKV_AZURE_80:settings of an app, no app
  // checkov:skip=CKV_AZURE_13:settings of an app, no app
  // checkov:skip=CKV_AZURE_88:settings of an app, no app
  // checkov:skip=CKV_AZURE_65:settings of an app, no app
  parent: app
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: identityClientId
    AzureWebJobsStorage__blobServiceUri: storage.properties.primaryEndpoints.blob
    AzureWebJobsStorage__queueServiceUri: storage.properties.primaryEndpoints.queue
    AzureWebJobsStorage__tableServiceUri: storage.properties.primaryEndpoints.table
    SlipwayStorage__credential: 'managedidentity'
    SlipwayStorage__clientId: identityClientId
    SlipwayStorage__blobServiceUri: storage.properties.primaryEndpoints.blob
    SlipwayStorage__queueServiceUri: storage.properties.primaryEndpoints.queue
    APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    // Calls at once in one instance; Python's own is four more than cores, fewer than Flex Consumption gives it.
    PYTHON_THREADPOOL_THREAD_COUNT: '32'
    SLIPWAY_DOCUMENTS: cosmos.properties.documentEndpoint
    SLIPWAY_COSMOS_DATABASE: 'slipway'
    SLIPWAY_SWEEP_SCHEDULE: '0 * * * * *'
    SLIPWAY_SWEEP_GRACE_S: '600'
    SLIPWAY_APPROVAL_KEY: empty(approvalKeySecretName) ? '' : '@Microsoft.KeyVault(SecretUri=${secrets}/${approvalKeySecretName})'
    SLIPWAY_EVENT_SINKS: empty(eventSinksSecretName) ? '' : '@Microsoft.KeyVault(SecretUri=${secrets}/${eventSinksSecretName})'
    SLIPWAY_ALERT_SINKS: empty(alertSinksSecretName) ? '' : '@Microsoft.KeyVault(SecretUri=${secrets}/${alertSinksSecretName})'
    SLIPWAY_ALERT_GROUP_WAIT_S: '30'
    SLIPWAY_PUBLIC_URL: 'https://${app.properties.defaultHostName}/api'
    SLIPWAY_PROMETHEUS_URL: prometheusUrl
    SLIPWAY_PROMETHEUS_AUTH: 'identity'
    SLIPWAY_LOG_ANALYTICS_WORKSPACE: workspaceCustomerId
    SLIPWAY_LOG_ANALYTICS_URL: ''
    SLIPWAY_EVENT_SOURCE: '/slipway/${environmentName}'
    SLIPWAY_LOG_FORMAT: 'json'
    SLIPWAY_TRACE_TO_INSIGHTS: string(traceToInsights)
    OTEL_EXPORTER_OTLP_ENDPOINT: ''
  }
}

resource publishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = [for way in ['ftp', 'scm']: {
  parent: app
  name: way
  properties: { allow: false }
}]

resource signIn 'Microsoft.Web/sites/config@2025-03-01' = if (!empty(authClientId)) {
  // checkov:skip=CKV_AZURE_66:settings of an app, no app
  // checkov:skip=CKV_AZURE_63:settings of an app, no app
  // checkov:skip=CKV_AZURE_222:settings of an app, no app
  // checkov:skip=CKV_AZURE_80:settings of an app, no app
  // checkov:skip=CKV_AZURE_13:settings of an app, no app
  // checkov:skip=CKV_AZURE_88:settings of an app, no app
  // checkov:skip=CKV_AZURE_65:settings of an app, no app
  parent: app
  name: 'authsettingsV2'
  properties: {
    platform: { enabled: true }
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'Return401'
      excludedPaths: ['/api/health', '/api/metrics', '/api/approvals/*', '/runtime/webhooks/blobs']
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          clientId: authClientId
          openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
        }
        validation: { allowedAudiences: ['api://${authClientId}', authClientId] }
      }
    }
    login: { tokenStore: { enabled: false } }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'AppServiceAuthenticationLogs', enabled: true }
    ]
  }
}

output id string = app.id
output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
