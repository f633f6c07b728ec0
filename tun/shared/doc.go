// Package shared maps memory that eBPF programs and this process share: the values of eBPF
// arrays. It imports nothing of this module.
package shared
