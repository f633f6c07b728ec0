// Package shared maps the values of eBPF arrays into this process's memory, so that eBPF programs
// and the process share them. It imports nothing of this module.
package shared
