// Package demo demonstrates fragwall: two hosts in network namespaces, a box between them, and
// exchanges that its policy accepts and drops.
//
// The input is the embedded configuration. The output is a text for users, and an error if the
// result of an exchange is not what the policy says. The box runs on a thread in its own namespace,
// the exchanges on another goroutine.
//
// The package imports tun/lab for the hosts, packet, packet/checksum and packet/verdict to make
// fragments, rules, and of the command's packages box, report and terminal.
package demo
