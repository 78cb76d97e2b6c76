package tipserve

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

const (
	// defaultAddress is where a server listens that is told nothing.
	defaultAddress = "127.0.0.1:50051"
	defaultPort    = "50051"
)

// resolvers are gRPC's own schemes, which are handed on.
var resolvers = regexp.MustCompile(`^(dns|unix|unix-abstract|ipv4|ipv6|vsock|xds|passthrough):`)

// hostAndPort is a host that is called as one of them.
var hostAndPort = regexp.MustCompile(`^[a-z0-9-]+:\d+/?$`)

// dnsWithoutPort is a name to which gRPC itself would add the port of https.
var dnsWithoutPort = regexp.MustCompile(`^dns:(/*|//[^/]+/)(\[[^\]]*\]|[^:/\[\]]+)$`)

// ownResolvers begin targets that are hosts and ports all the same.
var ownResolvers = regexp.MustCompile(`^(dns|ipv4|ipv6|passthrough):/*`)

// address is a server's address, checked.
type address struct {
	// target is the address as gRPC takes it: "127.0.0.1:50051".
	target string
	// scheme is "http", "https" or, if none was given, "".
	scheme string
}

// parseAddress takes what the command line and the Python client take: "host",
// "host:port", "http://host:port", "https://host:port", "::1", "[::1]:port",
// ":port", "unix:/path". A host alone means port 50051.
func parseAddress(given string) (address, error) {
	text := strings.TrimSpace(given)
	wrong := func(why string) (address, error) {
		return address{}, fmt.Errorf("tipserve: the server's address %q %s: give \"host:port\"", given, why)
	}
	if resolvers.MatchString(text) && !hostAndPort.MatchString(text) {
		text = strings.TrimSuffix(text, "/")
		if dnsWithoutPort.MatchString(text) {
			text += ":" + defaultPort
		}
		return address{target: text}, nil
	}
	scheme, rest, found := strings.Cut(text, "://")
	if scheme = strings.ToLower(scheme); !found {
		scheme, rest = "", text
	} else if scheme != "http" && scheme != "https" {
		return wrong("begins with neither http nor https")
	}
	rest = strings.TrimSuffix(rest, "/")
	if rest == "" {
		return wrong("names no host")
	}
	if strings.Contains(rest, "/") {
		return wrong("has a path")
	}
	host, port := rest, defaultPort
	if _, err := netip.ParseAddr(rest); err != nil {
		if split, number, err := net.SplitHostPort(rest); err == nil {
			host, port = split, number
		} else {
			host = rest
			if inside, ok := strings.CutPrefix(rest, "["); ok {
				if inside, ok = strings.CutSuffix(inside, "]"); !ok {
					return wrong("is not host and port")
				}
				host = inside
			}
		}
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if strings.ContainsAny(host, "/?#@[] \t") {
		return wrong("is not host and port")
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
		return wrong("is not host and port")
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return wrong("has a port that is not within 1 to 65535")
	}
	target := net.JoinHostPort(host, port)
	if resolvers.MatchString(target) {
		// gRPC would take "dns:7" for a name of its own.
		target = "dns:///" + target
	}
	return address{target: target, scheme: scheme}, nil
}

// plain says whether the address is said to be without TLS.
func (a address) plain() bool { return a.scheme == "http" || strings.HasPrefix(a.target, "unix") }

// loopback says whether it is this machine, to which no proxy leads.
func (a address) loopback() bool {
	if strings.HasPrefix(a.target, "unix") {
		return true
	}
	target := ownResolvers.ReplaceAllString(a.target, "")
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.IsLoopback()
}
