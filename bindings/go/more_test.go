package grug

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGrammars(t *testing.T) {
	ctx := context.Background()
	s := must(load1(t).NewSession(nil))
	for kind, c := range map[GrammarKind]struct{ source, match string }{
		Regex:      {"(19|20)[0-9]{2}", "^(19|20)[0-9]{2}$"},
		GBNF:       {`root ::= "<" [a-z]{2,4} ">"`, "^<[a-z]{2,4}>$"},
		JSONSchema: {`{"enum": ["red", "green"]}`, `^"(red|green)"$`},
	} {
		g := must(NewGrammar(kind, c.source))
		sampler := must(NewSampler(SamplerOptions{Temperature: 1, Grammar: g, UTF8: true}))
		g.Close() // the sampler goes on
		r := s.Reader(ctx, sampler, Generation{})
		if got := must(io.ReadAll(r)); !regexp.MustCompile(c.match).Match(got) || r.Reason != StopGrammar {
			t.Errorf("%s: %q", c.source, got)
		}
		if _, err := NewSampler(SamplerOptions{Grammar: g}); err != ErrClosed {
			t.Error(err)
		}
	}
	if _, err := NewGrammar(Regex, "("); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err := NewGrammar(JSONSchema, `{"multipleOf": 2}`); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	sampler := must(NewSampler(SamplerOptions{Grammar: must(NewGrammar(Regex, "a[b-d]?"))}))
	if err := sampler.Accept('b'); !errors.Is(err, ErrDeadEnd) {
		t.Error(err)
	}
	if err := sampler.Accept('a'); err != nil {
		t.Error(err)
	}
	set, complete, err := sampler.Allowed()
	if err != nil || !complete || !set.Has('c') || set.Has('a') {
		t.Error(set, complete, err)
	}
}

func TestSamplerOptions(t *testing.T) {
	s := must(load1(t).NewSession(nil))
	var bias [256]float32
	for b := range bias {
		bias[b] = float32(math.Inf(-1))
	}
	bias['x'], bias['y'] = 0, 0
	only := must(NewSampler(SamplerOptions{Temperature: 1, Bias: &bias}))
	got := must(io.ReadAll(s.Reader(context.Background(), only, Generation{MaxBytes: 40})))
	if strings.Trim(string(got), "xy") != "" || !bytes.Contains(got, []byte("x")) {
		t.Errorf("%q", got)
	}
	// A byte is not repeated within the window.
	bias['z'] = 0
	fresh := must(NewSampler(SamplerOptions{PenaltyWindow: 2, PresencePenalty: 1e6, Bias: &bias}))
	got = must(io.ReadAll(s.Reader(context.Background(), fresh, Generation{MaxBytes: 30})))
	for i := 2; i < len(got); i++ {
		if got[i] == got[i-1] || got[i] == got[i-2] {
			t.Fatalf("%q", got)
		}
	}
	for _, wrong := range []SamplerOptions{
		{TypicalP: 2}, {MirostatTau: -1}, {PenaltyWindow: -1}, {PenaltyWindow: 1 << 30}, {TopK: -1}, {RepeatPenalty: -1},
	} {
		if _, err := NewSampler(wrong); !errors.Is(err, ErrInvalid) {
			t.Error(wrong, err)
		}
	}
}

func TestText(t *testing.T) {
	s := must(load1(t).NewSession(nil))
	sampler := must(NewSampler(SamplerOptions{Temperature: 2, UTF8: true, Grammar: must(NewGrammar(Regex, "[é-ü€😀]{9}"))}))
	n := 0
	for piece, err := range s.Text(context.Background(), sampler, Generation{}) {
		if err != nil || len([]rune(piece)) != 1 || strings.ContainsRune(piece, '\uFFFD') {
			t.Fatalf("%q %v", piece, err)
		}
		n++
	}
	if n != 9 {
		t.Error(n)
	}
	// Anything at all, as characters: nothing is lost and nothing is half.
	s.Reset()
	text := ""
	for piece, err := range s.Text(context.Background(), warm(1), Generation{MaxBytes: 60}) {
		text += must(piece, err)
	}
	s.Reset()
	raw := must(io.ReadAll(s.Reader(context.Background(), warm(1), Generation{MaxBytes: 60})))
	if strings.ToValidUTF8(string(raw), "") != strings.ReplaceAll(text, "\uFFFD", "") {
		t.Errorf("%q\n%q", raw, text)
	}
}

func TestCompression(t *testing.T) {
	ctx := context.Background()
	if _, err := load1(t).Compress(ctx, []byte("text"), 0); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	m := must(Load(ctx, os.Getenv("GRUG_TEST_MODEL"), &ModelOptions{Portable: true}))
	text := must(io.ReadAll(must(m.NewSession(nil)).Reader(ctx, nil, Generation{MaxBytes: 300})))
	archive := must(m.Compress(ctx, text, 16))
	if len(archive) > 200 || !bytes.Equal(must(m.Decompress(ctx, archive, 300)), text) {
		t.Error(len(archive))
	}
	if got, err := m.Decompress(ctx, must(m.Compress(ctx, nil, 0)), 0); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if _, err := m.Decompress(ctx, archive, 299); !errors.Is(err, ErrSpace) {
		t.Error(err)
	}
	if _, err := m.Decompress(ctx, archive[:len(archive)-1], 300); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	late, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := m.Compress(late, make([]byte, 1<<24), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestForkAndBatch(t *testing.T) {
	ctx := context.Background()
	m := load1(t)
	s := must(m.NewSession(nil))
	io.WriteString(s, "same")
	fork := must(s.Fork())
	want := text(t, s, 3, 30)
	// The fork listens to its own contexts.
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Feed(done, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Close()

	other := must(m.NewSession(nil))
	sampler, x := warm(3), byte('x')
	for i := range want {
		picked := must(NextBatch(ctx, []Step{{Session: fork, Sampler: sampler}, {Session: other, Input: &x}}))
		if picked[0].Err != nil || picked[0].Byte != want[i] || picked[1].Byte != 'x' {
			t.Fatal(i, picked)
		}
	}
	if must(other.Position()) != 30 {
		t.Error("position")
	}
	if _, err := NextBatch(ctx, []Step{{Session: fork}, {Session: fork}}); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	strict := must(m.NewSession(&SessionOptions{NoSlide: true}))
	strict.Write(make([]byte, 32))
	picked := must(NextBatch(ctx, []Step{{Session: strict}, {Session: other}}))
	if !errors.Is(picked[0].Err, ErrFull) || picked[1].Err != nil {
		t.Error(picked)
	}
	if picked, err := NextBatch(ctx, nil); err != nil || len(picked) != 0 {
		t.Error(picked, err)
	}
	if _, err := NextBatch(done, []Step{{Session: other}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// After a batch, a session listens to its contexts again.
	late, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := io.Copy(io.Discard, other.Reader(late, nil, Generation{})); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestProgressAndLog(t *testing.T) {
	ctx := context.Background()
	var mu sync.Mutex
	var lines bytes.Buffer
	locked := writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return lines.Write(p)
	})
	last := -1.0
	options := &ModelOptions{
		Log: slog.New(slog.NewTextHandler(locked, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Progress: func(fraction float64) error {
			if fraction < last {
				t.Error(fraction, last)
			}
			last = fraction
			return nil
		},
	}
	m := must(Load(ctx, os.Getenv("GRUG_TEST_MODEL"), options))
	s := must(m.NewSession(nil))
	m.Close()
	must(s.Fork()).Close()
	s.Close()
	if log := lines.String(); last != 1 || !strings.Contains(log, "parameters") || !strings.Contains(log, "DEBUG") {
		t.Error(last, log)
	}
	enough := errors.New("enough")
	options.Progress = func(float64) error { return enough }
	if _, err := Load(ctx, os.Getenv("GRUG_TEST_MODEL"), options); err != enough {
		t.Error(err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Load(done, os.Getenv("GRUG_TEST_MODEL"), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// What nobody closes is freed when it is collected.
	for range 20 {
		must(must(Load(ctx, os.Getenv("GRUG_TEST_MODEL"), &ModelOptions{Threads: 1, Log: options.Log})).NewSession(nil))
	}
	runtime.GC()
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
