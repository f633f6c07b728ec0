// Package cluster tests the injection of fragwall (deploy/kustomize/inject) with a Kubernetes API
// server. "make test-cluster" builds kube-apiserver, etcd, kube-controller-manager and kubectl from
// the modules that go.mod lists, and runs the tests. The tests send the manifests and the pods of
// testdata to the server, and compare each pod that it stores with a golden file.
package cluster
