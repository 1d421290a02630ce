"""What a mail says, in Go's templates: few lines, the most important first, since most are read on a phone.

Grafana escapes what goes into its HTML, and encodes the subject. Names of runs and layers are data here; only where
they go into an address they are escaped. In the plain part of a mail Grafana writes `&` as `&amp;`, so that there an
address ends with its first parameter: the run comes first. A space in it is `%20`: Grafana would write `+` as `&#43;`.

The annotation `grafana_state_reason` says why Grafana resolved an alert; without it the values came back. The alerts of
a series that is gone have it, and those of a rule that was paused, changed or deleted: these are no recoveries.
"""

from __future__ import annotations

from typing import Final

SUBJECT: Final = "gatewatch.subject"
TEXT: Final = "gatewatch.text"
MOST: Final = 20
"""Maximum number of alerts that a mail lists."""
NAMES: Final = 3
"""Maximum number of alerts that its subject names."""
_BEFORE: Final = 3600 * 10**9
"""Where Grafana's address of a panel has no time, it is opened from an hour before the alert, in nanoseconds."""

TEMPLATES: Final = (
    """\
{{ define "gatewatch.subject" -}}
{{ if not .Alerts.Firing }}{{ template "gatewatch.end" .Alerts.Resolved }}
{{- else if eq .CommonLabels.severity "critical" }}Critical: {{ end -}}
{{ with .CommonLabels.run }}{{ . }}{{ else }}Gatewatch{{ end }}{{ ": " -}}
{{ if match "^Datasource" .CommonLabels.alertname }}rules cannot be evaluated
{{- else if .CommonLabels.alertname }}{{ .CommonLabels.alertname }}
{{- with .CommonLabels.layer }} in {{ . }}{{ end }}{{ if gt (len .Alerts) 1 }} ({{ len .Alerts }}){{ end }}
{{- else if .Alerts.Firing }}{{ template "gatewatch.names" .Alerts.Firing }}
{{- else }}{{ template "gatewatch.names" .Alerts.Resolved }}{{ end -}}
{{ end }}

{{ define "gatewatch.end" -}}
{{ $end := "Over: " -}}
{{ range . }}{{ if not (match "^Datasource" .Labels.alertname) -}}
{{ if match "MissingSeries|NoData" .Annotations.grafana_state_reason }}{{ $end = "No more data: " }}
{{- else if and .Annotations.grafana_state_reason (eq $end "Over: ") }}{{ $end = "No longer evaluated: " }}{{ end -}}
{{ end }}{{ end }}{{ $end -}}
{{ end }}

{{ define "gatewatch.names" -}}
{{ $seen := "|" }}{{ $count := "" -}}
{{ range . }}{{ if not (match (reReplaceAll "[^A-Za-z0-9_]" "." .Labels.alertname | printf "[|]%s[|]") $seen) -}}
{{ $seen = print $seen .Labels.alertname "|" }}{{ $count = print $count "." -}}
{{ if le (len $count) NAMES }}{{ if gt (len $count) 1 }}, {{ end }}{{ .Labels.alertname }}{{ end -}}
{{ end }}{{ end -}}
{{ if gt (len $count) NAMES }} and others{{ end -}}
{{ if or (gt (len $count) NAMES) (gt (len .) (len $count)) }}, {{ len . }} in all{{ end -}}
{{ end }}

{{ define "gatewatch.text" -}}
{{ if match "^Datasource" .CommonLabels.alertname }}{{ template "gatewatch.failed" . }}
{{- else }}{{ template "gatewatch.alerts" . }}{{ end -}}
{{ end }}

{{ define "gatewatch.alerts" -}}
{{ range $i, $alert := .Alerts.Firing }}{{ if lt $i MOST }}{{ template "gatewatch.firing" $alert }}{{ end }}{{ end -}}
{{ range $i, $alert := .Alerts.Resolved -}}
{{ if lt $i MOST }}{{ template "gatewatch.resolved" $alert }}{{ end }}{{ end -}}
{{ if or (gt (len .Alerts.Firing) MOST) (gt (len .Alerts.Resolved) MOST) -}}
{{ len .Alerts.Firing }} fire, {{ len .Alerts.Resolved }} do no more. All of them:
{{ reReplaceAll "/+$" "" .ExternalURL }}/alerting/list
{{ end -}}
{{ end }}

{{ define "gatewatch.failed" -}}
{{ if .Alerts.Firing -}}
{{ with index .Alerts.Firing 0 -}}
● cannot be evaluated since {{ template "gatewatch.time" .StartsAt }}: {{ end -}}
{{ template "gatewatch.rules" .Alerts.Firing }}
{{ with index .Alerts.Firing 0 }}{{ .Annotations.Error }}{{ end }}
`gatewatch check` says what is wrong. Trainings go on meanwhile, their points wait on their machines.
{{ else -}}
○ evaluated again: {{ template "gatewatch.rules" .Alerts.Resolved }}
{{ end -}}
{{ end }}

{{ define "gatewatch.rules" -}}
{{ range $i, $alert := . }}{{ if $i }}, {{ end }}{{ $alert.Labels.rulename }}{{ end }}
{{- end }}

{{ define "gatewatch.firing" -}}
{{ if match "^Datasource" .Labels.alertname -}}
● {{ .Labels.rulename }} cannot be evaluated{{ with .Annotations.Error }}: {{ . }}{{ end }}
since {{ template "gatewatch.time" .StartsAt }}

{{ else -}}
● {{ .Labels.alertname }} ({{ .Labels.severity }})
{{ template "gatewatch.place" . }}{{ .Annotations.summary }}{{ with .Annotations.value }}; {{ . }}{{ end }}
since {{ template "gatewatch.time" .StartsAt }}
{{ .Annotations.description }}
{{ template "gatewatch.links" . }}
{{ end -}}
{{ end }}

{{ define "gatewatch.resolved" -}}
{{ if match "^Datasource" .Labels.alertname -}}
○ evaluated again: {{ .Labels.rulename }}

{{ else if match "MissingSeries|NoData" .Annotations.grafana_state_reason -}}
○ no more data: {{ .Labels.alertname }}
{{ template "gatewatch.place" . }}{{ .Annotations.summary }}
{{ template "gatewatch.since" . }}It still fired with the last data: this is no recovery.
{{ if .Labels.run }}The run ended or died{{ else }}Its data ended{{ end }}, or the store was away.
{{ template "gatewatch.links" . }}
{{ else if .Annotations.grafana_state_reason -}}
○ no longer evaluated: {{ .Labels.alertname }}
{{ template "gatewatch.place" . }}{{ .Annotations.summary }}
{{ template "gatewatch.since" . }}It still fired when the rule was paused, changed or deleted in Grafana.

{{ else -}}
○ over: {{ .Labels.alertname }}
{{ template "gatewatch.place" . }}{{ .Annotations.summary }}
{{ template "gatewatch.since" . }}until {{ template "gatewatch.time" .EndsAt }}

{{ end -}}
{{ end }}

{{ define "gatewatch.since" -}}
{{ if .StartsAt.Before .EndsAt }}since {{ template "gatewatch.time" .StartsAt }}
{{ end -}}
{{ end }}

{{ define "gatewatch.place" -}}
{{ with .Labels.run }}{{ . }}{{ end }}{{ with .Labels.phase }} ({{ . }}){{ end -}}
{{ with .Labels.layer }} {{ . }}{{ end }}{{ with .Labels.param }} {{ . }}{{ end -}}
{{ with .Labels.gate }} {{ . }}{{ end }}{{ with .Labels.rule }} {{ . }}{{ end -}}
{{ with .Labels.job }}job {{ . }}{{ end -}}
{{ if or .Labels.run .Labels.job }}: {{ end -}}
{{ end }}

{{ define "gatewatch.links" -}}
{{ if .PanelURL }}See: {{ template "gatewatch.panel" . }}
{{ if match "^https?://" .Annotations.runbook_url }}Runbook: {{ .Annotations.runbook_url }}
{{ else if .Annotations.runbook_url -}}
Runbook: {{ reReplaceAll "/d/.*" "" .PanelURL }}/{{ .Annotations.runbook_url }}
{{ end -}}
{{ end -}}
{{ end }}

{{ define "gatewatch.panel" -}}
{{ reReplaceAll "[?].*" "" .PanelURL }}?
{{- with .Labels.run }}var-run={{ template "gatewatch.escaped" . }}&{{ end }}
{{- with .Labels.phase }}var-phase={{ template "gatewatch.escaped" . }}&{{ end }}
{{- with .Labels.layer }}var-layer={{ template "gatewatch.escaped" . }}&{{ end }}
{{- with .Labels.gate }}var-gate={{ template "gatewatch.escaped" . }}&{{ end }}
{{- reReplaceAll "^[^?]*[?]" "" .PanelURL }}
{{- if not (match "[?&]from=" .PanelURL) }}&from={{ (.StartsAt.Add -BEFORE).UnixMilli }}&to=now{{ end -}}
{{ end }}

{{ define "gatewatch.escaped" }}{{ reReplaceAll "[+]" "%20" (urlquery .) }}{{ end }}

{{ define "gatewatch.time" }}{{ .UTC.Format "2 Jan 15:04 UTC" }}{{ end }}
""".replace("MOST", str(MOST))
    .replace("NAMES", str(NAMES))
    .replace("BEFORE", str(_BEFORE))
)
