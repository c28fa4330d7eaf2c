module github.com/writhq/writ/internal/tools

go 1.26
