{{/* Names. */}}

{{- define "streamlabel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "streamlabel.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "streamlabel.name" .) -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if contains (include "streamlabel.name" .) .Release.Name -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- $name = $name | trunc 52 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%s can't be the name of a Service, which has lower-case letters, digits and hyphens, and begins with a letter: set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "streamlabel.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "streamlabel.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels. Those of the selector never change: Kubernetes refuses that. */}}

{{- define "streamlabel.selectorLabels" -}}
{{- dict "app.kubernetes.io/name" (include "streamlabel.name" .) "app.kubernetes.io/instance" .Release.Name | toYaml -}}
{{- end -}}

{{- define "streamlabel.labels" -}}
{{- include "streamlabel.labelsWith" (list . dict) -}}
{{- end -}}

{{/* With labels for this object alone: (list . .Values.podMonitor.labels). The first of a name wins. */}}
{{- define "streamlabel.labelsWith" -}}
{{- $root := index . 0 -}}
{{- $selector := include "streamlabel.selectorLabels" $root | fromYaml -}}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" -}}
{{- $own := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/part-of" "streamlabel" "app.kubernetes.io/managed-by" $root.Release.Service "helm.sh/chart" $chart -}}
{{- merge $selector (default dict (index . 1)) (default dict $root.Values.commonLabels) $own | toYaml -}}
{{- end -}}

{{/* Fail with a sentence for values that Kubernetes would take, and that can't work. */}}
{{- define "streamlabel.check" -}}
{{- $host := include "streamlabel.setting" (list . "http.host" "0.0.0.0") -}}
{{- if regexMatch "^(127\\.|localhost$|::1$)" $host -}}
{{- fail (printf "settings.http.host is %s: the probes reach a pod at its own address. Leave it out" $host) -}}
{{- end -}}
{{- range include "streamlabel.brokers" . | splitList "," -}}
{{- if not (regexMatch ":[0-9]+$" (trim .)) -}}
{{- fail (printf "settings.kafka.bootstrap_servers: %s has no port: write host:port" (trim .)) -}}
{{- end -}}
{{- end -}}
{{- range $section, $table := .Values.settings -}}
{{- range $name, $value := (kindIs "map" $table | ternary $table (dict)) -}}
{{- if regexMatch "://[^/?#\\s]*@" (toString $value) -}}
{{- fail (printf "settings.%s.%s has a user name or a password in its address, and a ConfigMap is no place for it: list the user and the password in secrets" $section $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $seen := list -}}
{{- range .Values.secrets -}}
{{- $name := default .env .setting -}}
{{- if has $name $seen -}}
{{- fail (printf "secrets has two entries for %s: keep one" $name) -}}
{{- end -}}
{{- $seen = append $seen $name -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (kindIs "invalid" .maxUnavailable) (kindIs "invalid" .minAvailable) -}}
{{- fail "podDisruptionBudget has neither maxUnavailable nor minAvailable: set one, or enabled: false" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "streamlabel.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- $suffix := .Values.gpu.enabled | ternary .Values.gpu.tagSuffix "" -}}
{{- printf "%s:%s" $image.repository (default (print .Chart.AppVersion $suffix) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/*
The value of a setting, or the worker's default for it: (list . "kafka.group_id" "streamlabel").
*/}}
{{- define "streamlabel.setting" -}}
{{- $found := (index . 0).Values.settings -}}
{{- range splitList "." (index . 1) -}}
{{- $found = kindIs "map" $found | ternary (get (default dict $found) .) "" -}}
{{- end -}}
{{- kindIs "invalid" $found | or (eq (toString $found) "") | ternary (index . 2) $found -}}
{{- end -}}

{{- define "streamlabel.workload" -}}
{{- $static := include "streamlabel.setting" (list . "kafka.group_instance_id" "") -}}
{{- $exactly := eq (include "streamlabel.setting" (list . "delivery" "")) "exactly_once" -}}
{{- if and $static (eq .Values.workload "Deployment") -}}
{{- fail "settings.kafka.group_instance_id needs a StatefulSet: the names of a Deployment's pods change with each restart. Set workload to auto" -}}
{{- end -}}
{{- if ne .Values.workload "auto" -}}
{{- .Values.workload -}}
{{- else -}}
{{- /* A static member never leaves its group: each one that KEDA stops would hold its partitions for
kafka.session_timeout. Without them, the group's generation fences a worker that is thought dead. */ -}}
{{- or (ne $static "") (and $exactly (not .Values.keda.enabled)) | ternary "StatefulSet" "Deployment" -}}
{{- end -}}
{{- end -}}

{{/* Not empty if an init container fetches the models: one of them is of the hub. */}}
{{- define "streamlabel.fetches" -}}
{{- $names := list (include "streamlabel.setting" (list . "model.name" "distilbert-base-uncased-finetuned-sst-2-english")) -}}
{{- if .Values.settings.models -}}
{{- $names = list -}}
{{- range .Values.settings.models }}{{ $names = append $names (toString .name) }}{{ end -}}
{{- end -}}
{{- $fetched := .Values.model.fetch.enabled -}}
{{- range $names -}}
{{- if and $fetched (ne . "bundled") (not (regexMatch "^[./~]" .)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The entry of `secrets` for a setting, as JSON, or nothing: (list . "http.token"). */}}
{{- define "streamlabel.secretFor" -}}
{{- $setting := index . 1 -}}
{{- range (index . 0).Values.secrets -}}
{{- if eq (default "" .setting) $setting }}{{ toJson . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The settings with what follows from other values, as JSON. */}}
{{- define "streamlabel.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- $models := list -}}
{{- if $settings.models -}}
{{- /* Several models stand in place of the one that the values begin with. */ -}}
{{- if eq (include "streamlabel.setting" (list . "model.name" "")) "bundled" -}}
{{- $_ := set $settings "model" (omit $settings.model "name") -}}
{{- end -}}
{{- $models = values $settings.models -}}
{{- else -}}
{{- $_ := set $settings "model" (default dict $settings.model) -}}
{{- $models = list $settings.model -}}
{{- end -}}
{{- if .Values.gpu.enabled -}}
{{- /* Without it, a worker whose node has no driver would run on a few cores, and say so in its log. */ -}}
{{- range $models }}{{ $_ := merge . (dict "device" "cuda") }}{{ end -}}
{{- end -}}
{{- $settings | toJson -}}
{{- end -}}

{{/*
streamlabel.toml. JSON writes strings, numbers and lists as TOML does; Helm's own toToml turns
64000000 into 6.4e+07. Tables come after the options of the top level, which would else be theirs.
*/}}
{{- define "streamlabel.toml" -}}
{{- $settings := include "streamlabel.settings" . | fromJson -}}
{{- range $name, $value := $settings }}
{{- if not (kindIs "map" $value) }}
{{- include "streamlabel.tomlOption" (list $name $value) }}
{{- end }}
{{- end }}
{{- range $name, $table := $settings }}
{{- if kindIs "map" $table }}
{{- include "streamlabel.tomlTable" (list $name $table) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "streamlabel.tomlOption" -}}
{{- $name := index . 0 -}}
{{- if not (kindIs "invalid" (index . 1)) }}
{{ regexMatch "^[A-Za-z0-9_-]+$" $name | ternary $name (toRawJson $name) }} = {{ include "streamlabel.tomlValue" (index . 1) }}
{{- end }}
{{- end -}}

{{/* A value on one line. A table in a list, such as a route, is TOML's own form of a table. */}}
{{- define "streamlabel.tomlValue" -}}
{{- if kindIs "map" . -}}
{{- $members := list -}}
{{- range $name, $value := . -}}
{{- $members = append $members (printf "%s = %s" (toRawJson $name) (include "streamlabel.tomlValue" $value)) -}}
{{- end -}}
{ {{- join ", " $members -}} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "streamlabel.tomlValue" .) -}}
{{- end -}}
[{{ join "," $items }}]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{- define "streamlabel.tomlTable" -}}
{{- $path := index . 0 }}

[{{ $path }}]
{{- range $name, $value := index . 1 }}
{{- if not (kindIs "map" $value) }}
{{- include "streamlabel.tomlOption" (list $name $value) }}
{{- end }}
{{- end }}
{{- range $name, $value := index . 1 }}
{{- if kindIs "map" $value }}
{{- include "streamlabel.tomlTable" (list (printf "%s.%s" $path $name) $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The longest drain: the worker's, and ten seconds more for the parent of several processes. */}}
{{- define "streamlabel.drainSeconds" -}}
{{- $processes := include "streamlabel.setting" (list . "processes" 1) | int -}}
{{- add (include "streamlabel.setting" (list . "shutdown_timeout" 30) | float64 | ceil | int) (gt $processes 1 | ternary 10 0) -}}
{{- end -}}

{{- define "streamlabel.gracePeriod" -}}
{{- $drain := include "streamlabel.drainSeconds" . | int -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add $drain 15 -}}
{{- else if le (int $given) $drain -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and a worker may drain for %d s (settings.shutdown_timeout, and 10 s more with settings.processes): it would be killed with records in flight. Set more than %d, or leave it out" (int $given) $drain $drain) -}}
{{- else -}}
{{- int $given -}}
{{- end -}}
{{- end -}}

{{/* The brokers' addresses, comma-separated: the settings may have a list. */}}
{{- define "streamlabel.brokers" -}}
{{- $servers := default "localhost:9092" (default dict .Values.settings.kafka).bootstrap_servers -}}
{{- kindIs "slice" $servers | ternary (join "," $servers) $servers -}}
{{- end -}}

{{/* The ports of brokers, registry and token endpoint, for a NetworkPolicy: a JSON list. */}}
{{- define "streamlabel.remotePorts" -}}
{{- $kafka := default dict .Values.settings.kafka -}}
{{- $ports := list -}}
{{- range include "streamlabel.brokers" . | splitList "," -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | int) -}}
{{- end -}}
{{- $urls := default "" (default dict .Values.settings.registry).url | splitList "," -}}
{{- if eq (default "" $kafka.sasl_mechanism) "AWS_MSK_IAM" -}}
{{- /* The endpoints of AWS that give credentials. */ -}}
{{- $ports = append $ports 443 -}}
{{- end -}}
{{- range append $urls (default "" $kafka.sasl_oauth_token_url) | compact -}}
{{- $url := trim . | urlParse -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = append $ports (default (eq $url.scheme "https" | ternary "443" "80") $port | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{- define "streamlabel.port" -}}
{{- include "streamlabel.setting" (list . "http.port" 9100) -}}
{{- end -}}

{{/*
Path of an entry of `secrets` in the mounted directory. The worker reads the values of settings out
of it, by the names of their variables. What is itself wanted as a file has a folder of its own.
*/}}
{{- define "streamlabel.secretPath" -}}
{{- if .env -}}
files/{{ .env }}
{{- else -}}
{{- hasSuffix "file" .setting | ternary "files/" "" -}}STREAMLABEL_{{ .setting | upper | replace "." "_" }}
{{- end -}}
{{- end -}}
