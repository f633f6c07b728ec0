/* is_partial reports whether a checksum is left to the NIC (CHECKSUM_PARTIAL), which
 * a program cannot read directly. Only a CHECKSUM_COMPLETE can be updated, and
 * BPF_CSUM_LEVEL_INC changes only CHECKSUM_NONE to CHECKSUM_UNNECESSARY. If neither
 * succeeds, the checksum is partial: the caller has excluded CHECKSUM_UNNECESSARY. */
static __always_inline int is_partial(struct __sk_buff *skb)
{
	if (bpf_csum_update(skb, 0) >= 0)
		return 0;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
	if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) < 0)
		return 1;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return 0;
}
