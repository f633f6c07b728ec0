// Package shared maps memory that the kernel's programs and this process share: the
// values of eBPF arrays. Of fragwall's it imports nothing.
package shared
