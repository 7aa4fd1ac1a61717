"""What deploys Slipway, checked without a cloud: templates, manifests, workflows."""
