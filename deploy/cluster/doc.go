// Package cluster tests the injection of fragwall (deploy/kustomize/inject) with a
// Kubernetes API server: "make test-cluster" builds kube-apiserver, etcd, the
// controllers and kubectl from their modules, which this module names, and runs
// all tests here. In come the manifests and the pods of testdata; what the server
// made of each is compared with a golden file.
package cluster
