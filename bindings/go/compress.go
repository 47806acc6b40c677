package grug

/*
#include <grug.h>
*/
import "C"

import "context"

// Compress compresses bytes losslessly by what the model predicts, which must be loaded with Portable. A shorter context
// is faster and compresses less; 0 is the model's.
func (m *Model) Compress(ctx context.Context, p []byte, maxContext uint64) (archive []byte, err error) {
	archive = make([]byte, len(p)+len(p)/64+64) // GRUG_COMPRESS_BOUND
	n := C.size_t(len(archive))
	err = m.code(ctx, maxContext, func(h *C.grug_model, c *C.grug_session_options, e *C.grug_error) C.int32_t {
		return C.grug_compress(h, c, data(p), C.size_t(len(p)), data(archive), &n, e)
	})
	if err != nil {
		return nil, err
	}
	return archive[:int(n)], nil
}

// Decompress is the original of an archive, made with the same model on any machine; ErrSpace where the archive says that
// it is longer than maxBytes.
func (m *Model) Decompress(ctx context.Context, archive []byte, maxBytes int) (p []byte, err error) {
	var n C.size_t
	call := func(h *C.grug_model, c *C.grug_session_options, e *C.grug_error) C.int32_t {
		return C.grug_decompress(h, c, data(archive), C.size_t(len(archive)), data(p), &n, e)
	}
	err = m.code(ctx, 0, call)
	if e, ok := err.(*Error); ok && e.Is(ErrSpace) && n <= C.size_t(max(maxBytes, 0)) {
		p = make([]byte, int(n))
		err = m.code(ctx, 0, call)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (m *Model) code(
	ctx context.Context, maxContext uint64, call func(*C.grug_model, *C.grug_session_options, *C.grug_error) C.int32_t,
) error {
	return withToken(ctx, func(token *C.grug_cancel) error {
		c := C.grug_session_options{
			size: C.sizeof_grug_session_options, max_context: C.uint64_t(maxContext), cancel: token,
		}
		var e C.grug_error
		return m.use(func(h *C.grug_model) error { return check(call(h, &c, &e), &e) })
	})
}
