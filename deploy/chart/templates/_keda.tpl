{{/* KEDA's trigger and its sign-in, from the settings and the Secrets of the worker. */}}

{{/* The topics of the triggers, one each. An empty name stands for every topic of the group. */}}
{{- define "streamlabel.keda.topics" -}}
{{- $input := default dict .Values.settings.input -}}
{{- if $input.topic_pattern -}}
{{- list "" | toJson -}}
{{- else -}}
{{- default (list (default "texts.in" $input.topic)) $input.topics | toJson -}}
{{- end -}}
{{- end -}}

{{/* KEDA's names of the mechanisms. */}}
{{- define "streamlabel.keda.mechanism" -}}
{{- $names := dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512" "OAUTHBEARER" "oauthbearer" "AWS_MSK_IAM" "oauthbearer" "GSSAPI" "gssapi" -}}
{{- with (default dict .Values.settings.kafka).sasl_mechanism }}{{ get $names . }}{{ end -}}
{{- end -}}

{{- define "streamlabel.keda.metadata" -}}
{{- $root := index . 0 -}}
{{- $topic := index . 1 -}}
{{- $keda := $root.Values.keda -}}
{{- $kafka := default dict $root.Values.settings.kafka -}}
{{- $input := default dict $root.Values.settings.input -}}
bootstrapServers: {{ include "streamlabel.brokers" $root | quote }}
consumerGroup: {{ default "streamlabel" $kafka.group_id | quote }}
{{- with $topic }}
topic: {{ . | quote }}
{{- end }}
lagThreshold: {{ $keda.lagThreshold | int64 | quote }}
activationLagThreshold: {{ $keda.activationLagThreshold | int64 | quote }}
offsetResetPolicy: {{ default "earliest" $input.start }}
{{- if $topic }}
limitToPartitionsWithLag: {{ $keda.limitToPartitionsWithLag | quote }}
{{- with $keda.partitionLimitation }}
partitionLimitation: {{ . | quote }}
{{- end }}
{{- end }}
excludePersistentLag: {{ $keda.excludePersistentLag | quote }}
allowIdleConsumers: {{ $keda.allowIdleConsumers | quote }}
scaleToZeroOnInvalidOffset: {{ $keda.scaleToZeroOnInvalidOffset | quote }}
version: {{ $keda.version | quote }}
{{- with include "streamlabel.keda.mechanism" $root }}
sasl: {{ . }}
{{- end }}
{{- if eq (default "" $kafka.sasl_mechanism) "AWS_MSK_IAM" }}
saslTokenProvider: aws_msk_iam
awsRegion: {{ $kafka.sasl_aws_region | quote }}
{{- end }}
{{- if hasSuffix "SSL" (default "" $kafka.security_protocol) }}
tls: enable
unsafeSsl: {{ $keda.unsafeSsl | quote }}
{{- end }}
{{- end -}}

{{/*
Setting -> parameter of KEDA's TriggerAuthentication. KEDA takes a value from the Secret that
`secrets` names for the setting, else from the ConfigMap.
*/}}
{{- define "streamlabel.keda.parameters" -}}
kafka.sasl_username: username
kafka.sasl_password: password
kafka.sasl_oauth_client_id: username
kafka.sasl_oauth_client_secret: password
kafka.sasl_oauth_token_url: oauthTokenEndpointUri
kafka.sasl_oauth_scope: scopes
kafka.sasl_oauth_extensions: oauthExtensions
kafka.ssl_cafile: ca
kafka.ssl_certfile: cert
kafka.ssl_keyfile: key
kafka.ssl_key_password: keyPassword
{{- end -}}

{{/* What of it is in a Secret, as `secretTargetRef`: a JSON list. */}}
{{- define "streamlabel.keda.secret" -}}
{{- $parameters := include "streamlabel.keda.parameters" . | fromYaml -}}
{{- $found := list -}}
{{- range .Values.secrets -}}
{{- if hasKey $parameters (default "" .setting) -}}
{{- $found = append $found (dict "parameter" (get $parameters .setting) "name" .secretName "key" .key) -}}
{{- if and (eq .setting "kafka.ssl_certfile") (not (include "streamlabel.secretFor" (list $ "kafka.ssl_keyfile"))) -}}
{{- /* One file may have both; KEDA wants two. */ -}}
{{- $found = append $found (dict "parameter" "key" "name" .secretName "key" .key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* What of it is in the settings: a JSON object, parameter -> value. */}}
{{- define "streamlabel.keda.plain" -}}
{{- $kafka := default dict .Values.settings.kafka -}}
{{- $found := dict -}}
{{- $secret := list -}}
{{- range include "streamlabel.keda.secret" . | fromJsonArray }}{{ $secret = append $secret .parameter }}{{ end -}}
{{- range $setting, $parameter := include "streamlabel.keda.parameters" . | fromYaml -}}
{{- $value := get $kafka (trimPrefix "kafka." $setting) -}}
{{- if kindIs "map" $value -}}
{{- $pairs := list -}}
{{- range $name, $content := $value }}{{ $pairs = append $pairs (printf "%s=%s" $name $content) }}{{ end -}}
{{- $value = join "," $pairs -}}
{{- end -}}
{{- if eq $parameter "scopes" }}{{ $value = replace " " "," $value }}{{ end -}}
{{- if and $value (not (hasSuffix "file" $setting)) (not (has $parameter $secret)) }}{{ $_ := set $found $parameter $value }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Not empty if the trigger needs a TriggerAuthentication of the chart. */}}
{{- define "streamlabel.keda.signsIn" -}}
{{- if and .Values.keda.enabled (not .Values.keda.authenticationRef) -}}
{{- $secret := include "streamlabel.keda.secret" . | fromJsonArray -}}
{{- if or $secret (include "streamlabel.keda.mechanism" .) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "streamlabel.keda.authentication" -}}
{{- if eq (default "" (default dict .Values.settings.kafka).sasl_mechanism) "AWS_MSK_IAM" }}
podIdentity:
  {{- toYaml .Values.keda.podIdentity | nindent 2 }}
{{- end }}
{{- with include "streamlabel.keda.secret" . | fromJsonArray }}
secretTargetRef:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "streamlabel.keda.plain" . | fromJson }}
configMapTargetRef:
  {{- range $parameter, $_ := . }}
  - {parameter: {{ $parameter }}, name: {{ include "streamlabel.fullname" $ }}, key: keda.{{ $parameter }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "streamlabel.keda.authenticationRef" -}}
{{- if .Values.keda.authenticationRef -}}
{{- toYaml .Values.keda.authenticationRef -}}
{{- else if include "streamlabel.keda.signsIn" . -}}
name: {{ include "streamlabel.fullname" . }}
{{- end -}}
{{- end -}}

{{/* Fail with a sentence for what KEDA would refuse, or could not do. */}}
{{- define "streamlabel.keda.check" -}}
{{- $keda := .Values.keda -}}
{{- $kafka := default dict .Values.settings.kafka -}}
{{- if kindIs "invalid" $keda.maxReplicaCount -}}
{{- fail "keda.maxReplicaCount is not set: set the number of input partitions; a worker without a partition is idle" -}}
{{- end -}}
{{- if gt (int $keda.minReplicaCount) (int $keda.maxReplicaCount) -}}
{{- fail (printf "keda.minReplicaCount (%d) is more than keda.maxReplicaCount (%d)" (int $keda.minReplicaCount) (int $keda.maxReplicaCount)) -}}
{{- end -}}
{{- if not (kindIs "invalid" $keda.idleReplicaCount) -}}
{{- if ge (int $keda.idleReplicaCount) (int $keda.minReplicaCount) -}}
{{- fail (printf "keda.idleReplicaCount (%d) must be below keda.minReplicaCount (%d)" (int $keda.idleReplicaCount) (int $keda.minReplicaCount)) -}}
{{- end -}}
{{- end -}}
{{- if and $keda.limitToPartitionsWithLag $keda.allowIdleConsumers -}}
{{- fail "keda.allowIdleConsumers needs keda.limitToPartitionsWithLag: false" -}}
{{- end -}}
{{- if (default dict .Values.settings.input).topic_pattern -}}
{{- if or (eq (int $keda.minReplicaCount) 0) (not (kindIs "invalid" $keda.idleReplicaCount)) -}}
{{- fail "settings.input.topic_pattern needs keda.minReplicaCount of 1 or more and no keda.idleReplicaCount: KEDA sees only topics in which the group has offsets, and without a worker nothing finds the others" -}}
{{- end -}}
{{- end -}}
{{- if not $keda.authenticationRef -}}
{{- include "streamlabel.keda.checkSignIn" . -}}
{{- end -}}
{{- end -}}

{{- define "streamlabel.keda.checkSignIn" -}}
{{- $kafka := default dict .Values.settings.kafka -}}
{{- $remedy := "name your own TriggerAuthentication in keda.authenticationRef" -}}
{{- if eq (default "" $kafka.sasl_mechanism) "GSSAPI" -}}
{{- fail (printf "KEDA signs in with a keytab and a realm of its own for settings.kafka.sasl_mechanism GSSAPI: %s" $remedy) -}}
{{- end -}}
{{- if and (eq (default "" $kafka.sasl_mechanism) "AWS_MSK_IAM") (not $kafka.sasl_aws_region) -}}
{{- fail "KEDA needs settings.kafka.sasl_aws_region for AWS_MSK_IAM" -}}
{{- end -}}
{{- range list "sasl_aws_role_arn" "sasl_aws_profile" -}}
{{- if and (get $kafka .) (not $.Values.keda.podIdentity.roleArn) -}}
{{- fail (printf "KEDA does not use settings.kafka.%s: name the role that it takes in keda.podIdentity.roleArn, or %s" . $remedy) -}}
{{- end -}}
{{- end -}}
{{- if eq (default "" $kafka.sasl_oauth_client_auth) "post" -}}
{{- fail (printf "KEDA has nothing like settings.kafka.sasl_oauth_client_auth: %s, or scale without KEDA" $remedy) -}}
{{- end -}}
{{- range list "sasl_oauth_token_file" "sasl_oauth_parameters" "sasl_oauth_cafile" "proxy_url" -}}
{{- if or (get $kafka .) (include "streamlabel.secretFor" (list $ (printf "kafka.%s" .))) -}}
{{- fail (printf "KEDA has nothing like kafka.%s: %s, or scale without KEDA" . $remedy) -}}
{{- end -}}
{{- end -}}
{{- range list "ssl_cafile" "ssl_certfile" "ssl_keyfile" -}}
{{- if get $kafka . -}}
{{- fail (printf "KEDA can't read settings.kafka.%s, a path in the pods: list it in secrets, or %s" . $remedy) -}}
{{- end -}}
{{- end -}}
{{- end -}}
