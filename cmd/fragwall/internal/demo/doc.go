// Package demo shows the main job: two hosts in network namespaces, a box between
// them, and exchanges that its policy accepts and drops.
//
// What comes in is the embedded configuration; what goes out is a text for people,
// and an error where an exchange did not go as the policy says. The box runs on a
// thread in its namespace, the exchanges on another goroutine.
//
// The package imports tun/lab for the hosts, packet, packet/checksum and packet/verdict for
// fragments of its own, rules, and of the command's packages box and report.
package demo
