metadata description = 'Who is told when a month costs more than it may.'

param amount int
param startDate string
param emails array
param actionGroupId string

var groupName = resourceGroup().name
var nodesGroupName = '${groupName}-nodes'

// What the nodes cost lies in a group of their own, so no budget of this group would see it.
module budget 'subscriptionbudget.bicep' = {
  name: 'budget-${groupName}'
  scope: subscription()
  params: {
    name: 'budget-${groupName}'
    amount: amount
    startDate: startDate
    emails: emails
    actionGroupId: actionGroupId
    groupNames: [groupName, nodesGroupName]
  }
}
