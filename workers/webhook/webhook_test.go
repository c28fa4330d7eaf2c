package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type hookArgs struct {
	URL string `json:"url"`
}

// One attempt each, so that the end tells what the attempt was judged to be. Nothing of these kinds may be run again on a
// guess.
var (
	open    = intent.Kind[hookArgs]{Name: "shop.hook.open", Timeout: 20 * time.Second, MaxAttempts: 1}
	hasty   = intent.Kind[hookArgs]{Name: "shop.hook.hasty", Timeout: 700 * time.Millisecond, MaxAttempts: 1}
	guarded = intent.Kind[hookArgs]{Name: "shop.hook.guarded", Timeout: 20 * time.Second, MaxAttempts: 1}
	patient = intent.Kind[hookArgs]{Name: "shop.hook.patient", Backoff: intent.Backoff{Min: time.Millisecond, Max: time.Millisecond}}
)

const (
	secret        = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	older         = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
	publicOfOlder = "ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g="
)

func request(_ context.Context, job *workers.Job[hookArgs]) (*webhook.Request, error) {
	return &webhook.Request{
		URL: job.Args.URL, Header: http.Header{"Authorization": {"Bearer abcdef123456"}}, Secrets: []string{secret, older},
		Body: webhook.Event{Type: "invoice.paid", Timestamp: job.RequestedAt(), Data: strings.Repeat("d", 64<<10)},
	}, nil
}

// begin runs Writ with the handlers of all kinds until the test ends.
func begin(t *testing.T, db *testkit.DB, resolver *net.Resolver) {
	t.Helper()
	mux := workers.NewMux()
	handle := func(kind intent.Kind[hookArgs], cfg webhook.Config[hookArgs]) {
		cfg.Request, cfg.Resolver = request, resolver
		h, err := webhook.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		workers.Handle(mux, kind, h)
	}
	loopback := webhook.Config[hookArgs]{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, PlainHTTP: true}
	handle(hasty, loopback)
	handle(patient, loopback)
	handle(guarded, webhook.Config[hookArgs]{PlainHTTP: true})
	loopback.Receipt = func(ctx context.Context, tx pgx.Tx, job *workers.Job[hookArgs], answer *webhook.Response) error {
		_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1, $2, $3, $4)", job.ID(), answer.Status, len(answer.Body), answer.Truncated)
		return err
	}
	handle(open, loopback)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- writ.Run(ctx, db.Pool, testkit.AMQPURL(t), mux, writ.Config{Log: testkit.Log(t)}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func create(t *testing.T, db *testkit.DB, kind intent.Kind[hookArgs], url string) intent.ID {
	t.Helper()
	c, err := kind.CreateAlone(context.Background(), db.Pool, hookArgs{url}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// await waits until an intent rests, and returns how: its status, and what its log or flag says.
func await(t *testing.T, db *testkit.DB, id intent.ID) (how, lastError string) {
	t.Helper()
	testkit.Until(t, time.Minute, "at rest", func() (bool, string) {
		i, err := intent.Get(context.Background(), db, id)
		if err != nil {
			t.Fatal(err)
		}
		how, lastError = i.Status, ""
		if i.Error != nil {
			lastError = *i.Error
		}
		switch i.Status {
		case "ambiguous":
			how += ": " + *i.FlagReason
		case "error", "retrying":
			how += ": " + testkit.Value[string](t, db, "SELECT why FROM writ.log WHERE intent_id = $1 ORDER BY id DESC LIMIT 1", id)
		case "sent":
		default:
			return false, i.Status + " " + lastError
		}
		return true, ""
	})
	return how, lastError
}

const (
	sent     = "sent"
	stopped  = "error: stopped"
	notDone  = "error: attempts spent; the last one: not done"
	unknown  = "ambiguous: unknown"
	timedOut = "ambiguous: timeout"
)

func status(code int, header string) func(*endpoint, net.Conn) {
	return says(fmt.Sprintf("HTTP/1.1 %d Whatever\r\n%sContent-Length: 5\r\n\r\nhello", code, header))
}

// TestHandler: real servers that misbehave decide what becomes of the intent, and get no request twice.
func TestHandler(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		kind intent.Kind[hookArgs]
		url  string // with the server's address in place of HOST
		do   func(*endpoint, net.Conn)
		want string
		asks int32 // requests that must have begun to arrive
	}{
		{"Accepts", open, "http://HOST/in?token=s3cr3t", status(200, ""), sent, 1},
		{"SaysNothing", open, "http://HOST", says("HTTP/1.1 204 No Content\r\n\r\n"), sent, 1},
		{"AnswersWithoutEnd", open, "http://HOST", floods, sent, 1},
		{"BreaksOffItsAnswer", open, "http://HOST", says("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning"), sent, 1},
		{"NeverEndsItsAnswer", open, "http://HOST", dawdles, sent, 1},
		{"ClosesAfterTheBody", open, "http://HOST", says(""), unknown, 1},
		{"ClosesBeforeTheBody", open, "http://HOST", cutsBody, unknown, 1},
		{"ClosesAtOnce", open, "http://HOST", func(*endpoint, net.Conn) {}, unknown, 0},
		{"BreaksOffItsHeader", open, "http://HOST", says("HTTP/1.1 200 OK\r\nContent-Le"), unknown, 1},
		{"TalksGarbage", open, "http://HOST", says("+PONG\r\n"), unknown, 1},
		{"HasAHugeHeader", open, "http://HOST", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), unknown, 1},
		{"HangsAfterTheRequest", hasty, "http://HOST", func(e *endpoint, c net.Conn) { e.read(c); hangs(c) }, timedOut, 1},
		{"SwitchesProtocolsAndHangs", open, "http://HOST", func(e *endpoint, c net.Conn) {
			e.read(c)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			hangs(c)
		}, unknown, 1},
		{"HangsInTheHandshake", hasty, "https://HOST", func(_ *endpoint, c net.Conn) { hangs(c) }, notDone, 0},
		{"IsNoTLSServer", open, "https://HOST", says("HTTP/1.1 200 OK\r\n\r\n"), notDone, 0},
		{"ClosesInTheHandshake", open, "https://HOST", func(*endpoint, net.Conn) {}, notDone, 0},
		{"HasNoName", open, "http://nowhere.example", nil, notDone, 0},
		{"Refuses", open, "http://HOST", nil, notDone, 0},
		{"Status400", open, "http://HOST", status(400, ""), stopped, 1},
		{"Status408", open, "http://HOST", status(408, ""), notDone, 1},
		{"Status409", open, "http://HOST", status(409, ""), unknown, 1},
		{"Status410", open, "http://HOST", status(410, ""), stopped, 1},
		{"Status429", open, "http://HOST", status(429, ""), notDone, 1},
		{"Status500", open, "http://HOST", status(500, ""), unknown, 1},
		{"Status502", open, "http://HOST", status(502, "Retry-After: 1\r\n"), unknown, 1},
		{"Status503", open, "http://HOST", status(503, ""), unknown, 1},
		{"Status503RetryAfter", open, "http://HOST", status(503, "Retry-After: 1\r\n"), notDone, 1},
		{"RedirectsAway", open, "http://HOST", status(308, "Location: /elsewhere\r\n"), stopped, 1},
		{"RedirectsWhenDone", open, "http://HOST", status(303, "Location: /thanks\r\n"), unknown, 1},
		{"LoopbackBlocked", guarded, "http://HOST", status(200, ""), stopped, 0},
		{"MappedLoopbackBlocked", guarded, "http://[::ffff:127.0.0.1]:PORT", status(200, ""), stopped, 0},
		{"MetadataServiceBlocked", guarded, "http://169.254.169.254/latest/meta-data", nil, stopped, 0},
		{"AzuresMetadataServiceBlocked", guarded, "http://168.63.129.16/metadata", nil, stopped, 0},
		{"NameOfLoopbackBlocked", guarded, "http://inside.example:PORT", status(200, ""), stopped, 0},
		{"PlainNotAllowed", guarded, "ftp://HOST", nil, stopped, 0},
		{"NoURL", open, "nonsense", nil, stopped, 0},
	}
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nameServer(t, map[string][]string{"inside.example": {"127.0.0.1"}}))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := &endpoint{}
			if tt.do != nil {
				e = listen(t, tt.do)
			} else { // a port that nobody listens on
				e.Listener = listen(t, nil)
				e.Close()
			}
			_, port, _ := net.SplitHostPort(e.Addr().String())
			url := strings.NewReplacer("HOST", e.Addr().String(), "PORT", port).Replace(tt.url)
			id := create(t, db, tt.kind, url)
			how, lastError := await(t, db, id)
			if how != tt.want {
				t.Errorf("%s (%s); want %s", how, lastError, tt.want)
			}
			if got := e.requests.Load(); got != tt.asks {
				t.Errorf("%d requests arrived; want %d", got, tt.asks)
			}
			if tt.kind.Name == guarded.Name && e.connections.Load() != 0 {
				t.Error("a blocked address was connected to")
			}
			if strings.Contains(lastError, "s3cr3t") {
				t.Errorf("the error shows the URL: %s", lastError)
			}
			receipts := testkit.Value[int](t, db, "SELECT count(*) FROM receipts WHERE id = $1 AND length <= 65536", id)
			if want := map[bool]int{true: 1}[how == sent]; receipts != want {
				t.Errorf("%d receipts; want %d", receipts, want)
			}
		})
	}
}

// TestHandler_StrangeCertificate: who does not know the certificate sends nothing.
func TestHandler_StrangeCertificate(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nil)
	e := strangers(t)
	how, lastError := await(t, db, create(t, db, open, "https://"+e.Addr().String()))
	if how != notDone || e.requests.Load() != 0 || !strings.Contains(lastError, "certificate") {
		t.Errorf("%s (%s) after %d requests; want not done, and none", how, lastError, e.requests.Load())
	}
}

// TestHandler_Rebinding: a name that is public when it is looked at and is inside when it is called is of no use.
func TestHandler_Rebinding(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	names := nameServer(t, map[string][]string{"rebound.example": {"93.184.215.14", "127.0.0.1"}})
	begin(t, db, names)
	e := listen(t, status(200, ""))
	first, err := names.LookupNetIP(context.Background(), "ip4", "rebound.example")
	if err != nil || len(first) != 1 || first[0].String() != "93.184.215.14" {
		t.Fatalf("looked at: %v, %v", first, err)
	}
	_, port, _ := net.SplitHostPort(e.Addr().String())
	how, lastError := await(t, db, create(t, db, guarded, "http://rebound.example:"+port))
	if how != stopped || e.connections.Load() != 0 || !strings.Contains(lastError, "127.0.0.1 is not public") {
		t.Errorf("%s (%s), %d connections; want it stopped, and none", how, lastError, e.connections.Load())
	}
}

// TestHandler_Signed: the receiver can tell who sent it, that it is the same one, and by either key.
func TestHandler_Signed(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nil)
	e := listen(t, status(200, ""))
	id := create(t, db, open, "http://"+e.Addr().String())
	if how, lastError := await(t, db, id); how != sent {
		t.Fatal(how, lastError)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range []string{secret, "whpk_" + publicOfOlder} {
		if err := webhook.Verify(e.header, []string{key}, time.Now(), e.body); err != nil {
			t.Errorf("with %.6s: %v", key, err)
		}
	}
	if err := webhook.Verify(e.header, []string{secret}, time.Now(), append(e.body, ' ')); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("a changed body: %v; want ErrSignature", err)
	}
	if e.header.Get("Webhook-Id") != id.String() || e.header.Get("Idempotency-Key") != id.String() {
		t.Errorf("webhook-id %q, Idempotency-Key %q; want the intent's key", e.header.Get("Webhook-Id"), e.header.Get("Idempotency-Key"))
	}
	var event webhook.Event
	if err := json.Unmarshal(e.body, &event); err != nil || event.Type != "invoice.paid" || e.header.Get("Content-Type") != "application/json" {
		t.Errorf("body %.60s of type %s: %v", e.body, e.header.Get("Content-Type"), err)
	}
}

// TestHandler_RetryAfter: the next attempt waits for as long as it was asked to, and has the same id.
func TestHandler_RetryAfter(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nil)
	e := listen(t, status(429, "Retry-After: 120\r\n"))
	id := create(t, db, patient, "http://"+e.Addr().String())
	if how, lastError := await(t, db, id); how != "retrying: not done" || !strings.Contains(lastError, "429") {
		t.Fatal(how, lastError)
	}
	wait := testkit.Value[float64](t, db, "SELECT extract(epoch FROM i.run_at - l.at)::float8 FROM writ.intents i JOIN writ.log l ON l.intent_id = i.id WHERE i.id = $1", id)
	if wait < 119 || wait > 121 {
		t.Errorf("tried again %.1f s later; want 120", wait)
	}
}

// TestHandler_Secrets: what an answer repeats of the request's path, query and headers is not stored.
func TestHandler_Secrets(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nil)
	const path, query = "/hooks/T0C4D1ABC/tok%2Fen-5ecret", "?key=s3cr%2B3t&b=1"
	for name, answer := range map[string]string{
		"Body":        "HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\nCannot POST " + path + query + " (/hooks/t0c4d1abc/tok/en-5ecret; s3cr+3t) with Bearer abcdef123456",
		"Location":    "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: :" + path + query + "\r\n\r\n",
		"BrokenOff":   "HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\nno tok%2Fen-5ec",
		"HTML":        "HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n<a href='" + path + "?key=s3cr%2B3t&amp;b=1'>",
		"BasicAuth":   "HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\nwho is YW5uMTpwQHNzdzByZA==, or ann1:p%%40ssw0rd, with p@ssw0rd?",
		"JSONEscaped": "HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" + `{"url": "\/hooks\/T0C4D1ABC\/tok%%2fen-5ecret"}`,
	} {
		t.Run(name, func(t *testing.T) {
			head, body, _ := strings.Cut(answer, "\r\n\r\n")
			body = strings.ReplaceAll(body, "%%", "%")
			e := listen(t, says(strings.Replace(head, "%d", strconv.Itoa(len(body)), 1)+"\r\n\r\n"+body))
			_, lastError := await(t, db, create(t, db, open, "http://ann1:p%40ssw0rd@"+e.Addr().String()+path+query))
			for _, secret := range []string{"T0C4D1ABC", "5ec", "s3cr", "abcdef", "YW5uMT", "ssw0rd", "ann1"} {
				if strings.Contains(strings.ToLower(lastError), strings.ToLower(secret)) {
					t.Errorf("%q is stored: %s", secret, lastError)
				}
			}
			if !strings.Contains(lastError, e.Addr().String()) || !strings.Contains(lastError, "[…]") {
				t.Errorf("it says %q", lastError)
			}
		})
	}
}

// TestHandler_NameOnly: a key that stands before the host as a name without a password is one, too.
func TestHandler_NameOnly(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (id uuid, status int, length int, truncated boolean)")
	begin(t, db, nil)
	const answer = "no such key: sk_live_5ecret (c2tfbGl2ZV81ZWNyZXQ6)"
	e := listen(t, says("HTTP/1.1 404 Not Found\r\nContent-Length: "+strconv.Itoa(len(answer))+"\r\n\r\n"+answer))
	_, lastError := await(t, db, create(t, db, open, "http://sk_live_5ecret@"+e.Addr().String()+"/"))
	if strings.Contains(lastError, "5ecret") || strings.Contains(lastError, "c2tfb") || !strings.Contains(lastError, "no such key: […]") {
		t.Errorf("it says %q", lastError)
	}
}

func TestNew_Faults(t *testing.T) {
	t.Parallel()
	_, err := webhook.New(webhook.Config[hookArgs]{MaxResponse: -1, Means: map[int]webhook.Meaning{42: webhook.Done}, Allow: []netip.Prefix{{}}})
	for _, what := range []string{"Request", "MaxResponse", "Means[42]", "Allow"} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the fault of %s is not reported: %v", what, err)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	header := func(signature string) http.Header {
		return http.Header{"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"}, "Webhook-Signature": {signature}}
	}
	// The examples of the public specification's own libraries.
	const byHMAC = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	const byEd25519 = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
	made := http.Header{}
	if err := webhook.Sign(made, []string{secret, older}, "msg_p5jXN8AQM9LWM0D4loKWxJek", now, body); err != nil {
		t.Fatal(err)
	}
	if got := made.Get("webhook-signature"); got != byHMAC+" "+byEd25519 {
		t.Errorf("signed %s; want %s %s", got, byHMAC, byEd25519)
	}
	tests := map[string]struct {
		header http.Header
		at     time.Time
		body   []byte
		want   error
	}{
		"valid":                  {header(byHMAC), now, body, nil},
		"one of several":         {header("v2,AAAA v1,AAAA= " + byHMAC), now, body, nil},
		"at the tolerance":       {header(byHMAC), now.Add(webhook.Tolerance), body, nil},
		"too old":                {header(byHMAC), now.Add(webhook.Tolerance + time.Second), body, webhook.ErrSignature},
		"from the future":        {header(byHMAC), now.Add(-webhook.Tolerance - time.Second), body, webhook.ErrSignature},
		"another body":           {header(byHMAC), now, bytes.ToUpper(body), webhook.ErrSignature},
		"another scheme's":       {header("v1a," + byHMAC[3:]), now, body, webhook.ErrSignature},
		"no signature":           {header(""), now, body, webhook.ErrSignature},
		"no headers":             {http.Header{}, now, body, webhook.ErrSignature},
		"a timestamp out of all": {http.Header{"Webhook-Id": {"x"}, "Webhook-Timestamp": {"-9223372036854775808"}}, now, body, webhook.ErrSignature},
	}
	for name, tt := range tests {
		if err := webhook.Verify(tt.header, []string{secret}, tt.at, tt.body); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", name, err, tt.want)
		}
	}
	for _, bad := range []string{"", "whsec_", "whsec_c2hvcnQ=", "whsk_c2hvcnQ=", "whpk_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		err := webhook.Verify(header(byHMAC), []string{bad}, now, body)
		if err == nil || errors.Is(err, webhook.ErrSignature) || len(bad) > 6 && strings.Contains(err.Error(), bad[6:]) {
			t.Errorf("key %q: %v; want its fault, without itself", bad, err)
		}
	}
	if err := webhook.Sign(http.Header{}, nil, "a.b", now, body); err == nil {
		t.Error("an id with a full stop was signed")
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	guard := webhook.Guard(netip.MustParsePrefix("10.1.0.0/16"))
	tests := map[string]bool{
		"93.184.215.14": true, "1.1.1.1": true, "[2606:4700::1111]": true, "[::ffff:1.1.1.1]": true, "10.1.2.3": true, "[::ffff:10.1.2.3]": true,
		"10.2.0.1": false, "127.0.0.1": false, "0.0.0.0": false, "169.254.169.254": false, "100.64.0.1": false, "192.168.0.1": false,
		"172.31.255.255": false, "172.32.0.1": true, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false,
		"[::1]": false, "[::]": false, "[::ffff:127.0.0.1]": false, "[::127.0.0.1]": false, "[fe80::1%eth0]": false, "[fc00::1]": false, "[ff02::1]": false,
		"[64:ff9b::7f00:1]": false, "[2002:7f00:1::]": false, "[2001:0:1::]": false, "[2001:db8::1]": false, "[fec0::1]": false,
	}
	for host, want := range tests {
		err := guard(context.Background(), "tcp", host+":443", nil)
		var blocked *webhook.BlockedError
		if (err == nil) != want || err != nil && !errors.As(err, &blocked) {
			t.Errorf("%s: %v; want through %v", host, err, want)
		}
	}
	if guard(context.Background(), "unix", "/run/docker.sock", nil) == nil {
		t.Error("a socket was let through")
	}
}
