package webhook

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Guard returns a function for net.Dialer.ControlContext that lets connections through to public addresses and to those in
// allow, and refuses all others with a *BlockedError: the own machine, private networks, the metadata services of clouds,
// and what only wraps such an address. It sees the address that is connected to, so a name that resolves to another one
// from one moment to the next is of no use to an attacker.
func Guard(allow ...netip.Prefix) func(ctx context.Context, network, address string, _ syscall.RawConn) error {
	allow = slices.Clone(allow)
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return &BlockedError{Address: address}
		}
		addr := at.Addr().Unmap()
		if public(addr) || slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return nil
		}
		return &BlockedError{Address: addr.String()}
	}
}

// BlockedError is an address that may not be called.
type BlockedError struct{ Address string }

// Error says which address, and what to do.
func (e *BlockedError) Error() string {
	return fmt.Sprintf("the address %s is not public, so it is not called; a network of your own can be allowed with Config.Allow", e.Address)
}

// By the IANA registries of special-purpose addresses, and the metadata service of Azure: of IPv4 all is public but these, of IPv6 nothing but 2000::/3
// without these.
var (
	special4 = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4")
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func public(addr netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(addr) }
	if addr.Is4() {
		return !slices.ContainsFunc(special4, in)
	}
	return addr.Zone() == "" && global6.Contains(addr) && !slices.ContainsFunc(special6, in)
}
