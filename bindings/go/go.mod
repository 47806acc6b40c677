module grug

go 1.24
