targetScope = 'subscription'

metadata description = 'A budget over resource groups of the subscription.'

param name string

@description('What a month may cost, in the currency of the subscription.')
param amount int

param startDate string
param emails array
param actionGroupId string
param groupNames array

resource budget 'Microsoft.Consumption/budgets@2023-11-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: { startDate: startDate }
    filter: {
      dimensions: { name: 'ResourceGroupName', operator: 'In', values: groupNames }
    }
    notifications: {
      'actual-80': {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 80
        thresholdType: 'Actual'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
      'actual-100': {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 100
        thresholdType: 'Actual'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
      'forecast-110': {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 110
        thresholdType: 'Forecasted'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
    }
  }
}
