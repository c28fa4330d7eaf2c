package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The prefixes of secrets, and of the signatures made with them, in Standard Webhooks 1.0.
const (
	symmetric  = "whsec_"
	private    = "whsk_"
	publicKey  = "whpk_"
	hmacScheme = "v1"
	edScheme   = "v1a"
)

// Tolerance is how far off the receiver's clock a request's timestamp may be for [Verify].
const Tolerance = 5 * time.Minute

// Sign sets the headers of Standard Webhooks: webhook-id, webhook-timestamp, and webhook-signature with a signature by each
// secret, if there are any. id must have no full stop in it. Errors never show a secret.
func Sign(h http.Header, secrets []string, id string, at time.Time, body []byte) error {
	if id == "" || strings.Contains(id, ".") {
		return errors.New("the id of a signed request is empty or has a full stop in it")
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", stamp)
	h.Del("webhook-signature")
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		sign, err := signer(secret)
		if err != nil {
			return fmt.Errorf("secret %d: %w", i+1, err)
		}
		signatures[i] = sign(content(id, stamp, body))
	}
	if len(signatures) > 0 {
		h.Set("webhook-signature", strings.Join(signatures, " "))
	}
	return nil
}

func content(id, stamp string, body []byte) []byte {
	return []byte(id + "." + stamp + "." + string(body))
}

func signer(secret string) (func(content []byte) string, error) {
	if seed, ok := strings.CutPrefix(secret, private); ok {
		raw, err := base64.StdEncoding.DecodeString(seed)
		if err != nil || len(raw) != ed25519.SeedSize {
			return nil, errors.New("after whsk_ there must be an Ed25519 seed of 32 bytes in base64")
		}
		key := ed25519.NewKeyFromSeed(raw)
		return func(content []byte) string {
			return edScheme + "," + base64.StdEncoding.EncodeToString(ed25519.Sign(key, content))
		}, nil
	}
	key, err := hmacKey(secret)
	if err != nil {
		return nil, err
	}
	return func(content []byte) string {
		return hmacScheme + "," + base64.StdEncoding.EncodeToString(mac(key, content))
	}, nil
}

// hmacKey decodes a symmetric secret of 24 to 64 bytes.
func hmacKey(secret string) ([]byte, error) {
	rest, ok := strings.CutPrefix(secret, symmetric)
	raw, err := base64.StdEncoding.DecodeString(rest)
	if !ok || err != nil || len(raw) < 24 || len(raw) > 64 {
		return nil, errors.New("it must be whsec_ and 24 to 64 random bytes in base64, or whsk_ and an Ed25519 seed")
	}
	return raw, nil
}

func mac(key, content []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(content)
	return h.Sum(nil)
}

// ErrSignature means that a request is not signed by any of the keys, or not lately.
var ErrSignature = errors.New("the request is not signed by a known key, or its timestamp is off")

// Verify is the receiver's side, for tests and for applications that receive webhooks: it returns nil if one of the
// signatures was made with one of the keys (whsec_… or whpk_…), and the timestamp is within [Tolerance] of now. It returns
// [ErrSignature], or an error that says what is wrong with a key. Who receives must still drop a webhook-id that was seen
// before.
func Verify(h http.Header, keys []string, now time.Time, body []byte) error {
	id, stamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" || now.Sub(time.Unix(seconds, 0)).Abs() > Tolerance {
		return ErrSignature
	}
	for i, key := range keys {
		check, err := verifier(key)
		if err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
		for signature := range strings.FieldsSeq(h.Get("webhook-signature")) {
			scheme, encoded, _ := strings.Cut(signature, ",")
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && check(scheme, content(id, stamp, body), raw) {
				return nil
			}
		}
	}
	return ErrSignature
}

func verifier(key string) (func(scheme string, content, signature []byte) bool, error) {
	if encoded, ok := strings.CutPrefix(key, publicKey); ok {
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("after whpk_ there must be an Ed25519 public key in base64")
		}
		return func(scheme string, content, signature []byte) bool {
			return scheme == edScheme && ed25519.Verify(raw, content, signature)
		}, nil
	}
	secret, err := hmacKey(key)
	if err != nil {
		return nil, err
	}
	return func(scheme string, content, signature []byte) bool {
		return scheme == hmacScheme && hmac.Equal(mac(secret, content), signature)
	}, nil
}
