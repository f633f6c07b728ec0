// Package ufo finds, among frames that are to be written, the fragments that the
// kernel makes by itself: UDP fragmentation offload. A UDP datagram over IPv4 that is
// written to a TAP in one piece, with the virtio-net type [tun.GSOFragments], is cut
// by the kernel where it leaves (net/ipv4/udp_offload.c, udp4_ufo_fragment;
// net/ipv4/af_inet.c, inet_gso_segment). One write then does for all fragments.
//
//	fragments ──► Find ──► Datagram ──► Header, Payload... ──► one frame
//
// Find takes fragments only where the kernel makes the same of them, byte for byte.
// It reads the frames and keeps no copy.
//
// Of fragwall's, the package imports tun and packet/checksum.
package ufo
