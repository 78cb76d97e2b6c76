package tipserve

import (
	"fmt"
	"os"
	"strings"
)

// environment is a variable's value; a blank one, as Compose's ${X:-} makes it,
// is not set.
func environment(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// fromEnvironment fills in what the options leave open from the variables that
// the command line reads too.
func (c *config) fromEnvironment(scheme string) error {
	if c.token == nil && !c.hasHeader("authorization") {
		token, err := environmentToken()
		if err != nil {
			return err
		}
		if token != "" {
			if err := WithToken(token)(c); err != nil {
				return err
			}
		}
	}
	if scheme == "http" {
		return nil // said to be without TLS
	}
	if ca := environment("TIPSERVE_CA"); ca != "" && (c.tls == nil || c.tls.RootCAs == nil) {
		if err := WithCA(ca)(c); err != nil {
			return err
		}
	}
	cert, key := environment("TIPSERVE_CERT"), environment("TIPSERVE_KEY")
	switch {
	case cert == "" && key == "" || c.tls != nil && c.tls.GetClientCertificate != nil:
		return nil
	case cert == "" || key == "":
		return fmt.Errorf("tipserve: TIPSERVE_CERT and TIPSERVE_KEY go together, and one is not set")
	}
	return WithClientCertificate(cert, key)(c)
}

func environmentToken() (string, error) {
	if token := environment("TIPSERVE_TOKEN"); token != "" {
		return token, nil
	}
	file := environment("TIPSERVE_TOKEN_FILE")
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("tipserve: TIPSERVE_TOKEN_FILE: %w", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "\ufeff")), nil
}

func (c *config) hasHeader(key string) bool {
	for i := 0; i < len(c.headers); i += 2 {
		if c.headers[i] == key {
			return true
		}
	}
	return false
}
