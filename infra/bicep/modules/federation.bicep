metadata description = 'Which service accounts of the cluster may act as which identity: no secret is shared for it.'

param token string

@description('The cluster\'s issuer of service account tokens.')
param issuerUrl string

var audiences = ['api://AzureADTokenExchange']
var accounts = [
  { identity: 'serving', name: 'slipway-serving', subject: 'system:serviceaccount:slipway:slipway-serving' }
  { identity: 'collector', name: 'slipway-otel-collector', subject: 'system:serviceaccount:slipway:slipway-otel-collector' }
  { identity: 'scaler', name: 'keda-operator', subject: 'system:serviceaccount:kube-system:keda-operator' }
  { identity: 'gateway', name: 'slipway-gateway', subject: 'system:serviceaccount:slipway-gateway:slipway-gateway' }
  { identity: 'flux', name: 'source-controller', subject: 'system:serviceaccount:flux-system:source-controller' }
]

resource identities 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = [for account in accounts: {
  name: 'id-slipway-${account.identity}-${token}'
}]

resource credentials 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = [for (account, index) in accounts: {
  parent: identities[index]
  name: account.name
  properties: {
    issuer: issuerUrl
    subject: account.subject
    audiences: audiences
  }
}]
