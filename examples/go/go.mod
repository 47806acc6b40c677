module example.com/grug/examples/go

go 1.24

require example.com/grug/bindings/go v0.1.0

replace example.com/grug/bindings/go => ../../bindings/go
