package report

import (
	"fmt"
	"strings"
)

// SVG is the picture for the README: drain and Postgres CPU as bars.
func SVG(f File) string {
	panels := []struct{ workload, metric, title, better string }{
		{"drain", "drain_per_s", "Jobs drained per second", "longer is better"},
		{"drain", "postgres_ms", "Postgres CPU per job, ms, create to done", "shorter is better"},
	}
	var body strings.Builder
	y := 24
	for _, p := range panels {
		fmt.Fprintf(&body, `<text x="16" y="%d" class="h">%s <tspan class="s">(%s)</tspan></text>`+"\n", y, p.title, p.better)
		y += 10
		most := 0.0
		for _, k := range f.rows(p.workload) {
			most = max(most, f.Spread(k, p.metric).Max)
		}
		for _, k := range f.rows(p.workload) {
			y = bar(&body, y, k.Contender, f.Spread(k, p.metric), most)
		}
		y += 34
	}
	fmt.Fprintf(&body, `<text x="16" y="%d" class="s">%s · PostgreSQL %s, RabbitMQ %s · %d cores shared by all · thin line: smallest to largest of the rounds</text>`+"\n",
		y, f.Date.Format("2006-01-02"), bare(f.Versions["PostgreSQL"]), bare(f.Versions["RabbitMQ"]), f.Machine.Cores)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 %d" role="img" aria-label="Benchmarks of Writ beside its peers">
<style>text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600}.s{font-size:11px;fill:#57606a;font-weight:400}.v{font-size:12px}</style>
<rect width="720" height="%d" fill="#fff"/>
%s</svg>
`, y+16, y+16, body.String())
}

// bare is a version without what the packager says about it.
func bare(version string) string {
	version, _, _ = strings.Cut(version, " ")
	return version
}

// bar draws one row and returns where the next one begins.
func bar(b *strings.Builder, y int, name string, s Spread, most float64) int {
	const left, width, height = 128, 470, 18
	if s.N == 0 || most <= 0 {
		return y
	}
	fill := "#8c959f"
	if strings.HasPrefix(name, "writ") {
		fill = "#1f6feb"
	} else if name == "floor" {
		fill = "#d0d7de"
	}
	scale := func(v float64) float64 { return v / most * width }
	mid := float64(y) + height/2
	fmt.Fprintf(b, `<text x="16" y="%.0f">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>`, mid+4, name, left, y, scale(s.Median), height, fill)
	fmt.Fprintf(b, `<path d="M%.1f %.1fH%.1f" stroke="#24292f" stroke-width="1.5"/>`, left+scale(s.Min), mid, left+scale(s.Max))
	fmt.Fprintf(b, `<text x="%.1f" y="%.0f" class="v">%s</text>`+"\n", left+scale(s.Max)+6, mid+4, number(s.Median))
	return y + height + 5
}
