// Generate streams text from a model, until Ctrl-C at the latest.
//
//	scripts/install "$HOME/.local"
//	export PKG_CONFIG_PATH=$HOME/.local/lib/pkgconfig LD_LIBRARY_PATH=$HOME/.local/lib
//	cd examples/go && go run ./generate -model model.safetensors -prompt "ROMEO:"
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	grug "example.com/grug/bindings/go"
)

func run(ctx context.Context) error {
	path := flag.String("model", "model.safetensors", "the model file")
	prompt := flag.String("prompt", "", "what the text begins with")
	length := flag.Int64("bytes", 400, "how many bytes to generate; 0 = until Ctrl-C")
	temperature := flag.Float64("temperature", 0.8, "0 = greedy")
	flag.Parse()

	model, err := grug.Load(ctx, *path, nil)
	if err != nil {
		return err
	}
	defer model.Close()
	session, err := model.NewSession(nil)
	if err != nil {
		return err
	}
	defer session.Close()
	sampler, err := grug.NewSampler(grug.SamplerOptions{Temperature: float32(*temperature)})
	if err != nil {
		return err
	}
	defer sampler.Close()

	if _, err := session.Feed(ctx, []byte(*prompt)); err != nil {
		return err
	}
	fmt.Print(*prompt)
	_, err = io.Copy(os.Stdout, session.Reader(ctx, sampler, grug.Generation{MaxBytes: *length}))
	fmt.Println()
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
