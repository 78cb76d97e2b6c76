package tipserve

import "testing"

func TestQuotesOfCSV(t *testing.T) {
	for text, sound := range map[string]bool{
		"a,b\n\"0.png\",\"b \"\"x\"\", y\"\n": true,
		"a,b\nc,d\"e\"\n":                     true,
		"a,b\n\"c\"d,e\n":                     false,
		"a,b\n\"c\" ,e\n":                     false,
		"a,b\n\"c,d\n":                        false,
		"\"a\"\r\n\"b\"\r\n":                  true,
		"\"\"":                                true,
	} {
		if err := checkQuotes([]byte(text), ','); (err == nil) != sound {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestHalvesOfPairsInJSON(t *testing.T) {
	for text, half := range map[string]bool{
		`"\ud83d\ude00"`: false, `"\ud83d"`: true, `"\ude00"`: true, `"\ud83d x \ude00"`: true,
		`"\\ud83d"`: false, `"\\\ud83d"`: true, `"é\n"`: false, `"\ud83d\ud83d\ude00"`: true,
	} {
		if halfPair([]byte(text)) != half {
			t.Errorf("%s", text)
		}
	}
}

func TestAddressesThatAreNoPaths(t *testing.T) {
	for text, path := range map[string]string{
		"file:///no/a%20b.png": "/no/a b.png", "FILE://localhost/no/a": "/no/a",
		"file://host/a": "file://host/a", "/no/a%20b": "/no/a%20b", "file:///no/%zz": "/no/%zz",
	} {
		if got := localPath(text); got != path {
			t.Errorf("%s: %s", text, got)
		}
	}
	for text, want := range map[string]string{
		"data:image/png;base64,aGVsbG8=": "hello", "DATA:;BASE64,aGVs bG8": "hello", "data:,h%65llo": "hello",
	} {
		data, found, err := ofDataURL(text)
		if string(data) != want || !found || err != nil {
			t.Errorf("%s: %q %v %v", text, data, found, err)
		}
	}
	if _, found, err := ofDataURL("data:;base64,!!!"); !found || err == nil {
		t.Error("damaged Base64 was taken")
	}
	if _, found, _ := ofDataURL("database.png"); found {
		t.Error("a path was taken for an address")
	}
}
