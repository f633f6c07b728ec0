// Package deploy contains the packaging and the manifests of fragwall, and their tests. The tests
// render the manifests and decode them strictly, as the API server does. The package is a separate
// module, so that only these tests need the modules of Kubernetes.
package deploy
