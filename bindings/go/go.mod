module example.com/grug/bindings/go

go 1.24
