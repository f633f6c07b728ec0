// Package deploy holds what fragwall is packaged and deployed by. It is a
// module of its own, so that only its tests need Kubernetes' modules: they
// render the manifests and read them strictly, as the API server does.
package deploy
