// What Grafana makes of a message template: text/template with the functions of the Alertmanager that ours uses.
// Reads the template's text and the alerts as JSON, and writes the subject and the text as JSON.
package main

import (
	"encoding/json"
	"log"
	"os"
	"regexp"
	"strings"
	"text/template"
	"time"
)

type alert struct {
	Status              string
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	PanelURL            string
}

type alerts []alert

func (all alerts) having(status string) []alert {
	found := []alert{}
	for _, one := range all {
		if one.Status == status {
			found = append(found, one)
		}
	}
	return found
}

func (all alerts) Firing() []alert   { return all.having("firing") }
func (all alerts) Resolved() []alert { return all.having("resolved") }

type given struct {
	Template string
	Data     struct {
		Alerts       alerts
		CommonLabels map[string]string
		ExternalURL  string
	}
}

func main() {
	var in given
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		log.Fatal(err)
	}
	functions := template.FuncMap{
		"match": regexp.MatchString,
		"reReplaceAll": func(pattern, replacement, text string) string {
			return regexp.MustCompile(pattern).ReplaceAllString(text, replacement)
		},
	}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(in.Template)
	if err != nil {
		log.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range []string{"subject", "text"} {
		var text strings.Builder
		if err := parsed.ExecuteTemplate(&text, "gatewatch."+name, in.Data); err != nil {
			log.Fatal(err)
		}
		out[name] = text.String()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}
