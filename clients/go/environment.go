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
func (c *config) fromEnvironment(server address) error {
	if c.token == nil && !c.hasHeader("authorization") {
		token, found, err := environmentToken()
		if err != nil {
			return err
		}
		if found {
			if err := WithToken(token)(c); err != nil {
				return err
			}
		}
	}
	if server.plain() {
		return nil
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

// environmentToken is the token that the environment names, if it names one; a
// file that is empty is named all the same.
func environmentToken() (token string, found bool, err error) {
	if token := environment("TIPSERVE_TOKEN"); token != "" {
		return token, true, nil
	}
	file := environment("TIPSERVE_TOKEN_FILE")
	if file == "" {
		return "", false, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", false, fmt.Errorf("tipserve: TIPSERVE_TOKEN_FILE: %w", err)
	}
	return string(text), true, nil
}

func (c *config) hasHeader(key string) bool {
	for i := 0; i < len(c.headers); i += 2 {
		if c.headers[i] == key {
			return true
		}
	}
	return false
}
