{{/* Parts of the pod that the worker and the init container share. */}}

{{/* A container of the image, but for its name, command, variables and probes. */}}
{{- define "streamlabel.container" -}}
image: {{ include "streamlabel.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- include "streamlabel.resources" . | nindent 2 }}
# The last lines of the log name the error of a worker that ended.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "streamlabel.volumeMounts" . | nindent 2 }}
{{- end -}}

{{- define "streamlabel.env" -}}
- name: STREAMLABEL_CONFIG
  value: /etc/streamlabel/streamlabel.toml
# The image sets these, and a variable has priority over the file.
- name: STREAMLABEL_HTTP_HOST
  value: {{ include "streamlabel.setting" (list . "http.host" "0.0.0.0") | quote }}
- name: STREAMLABEL_HTTP_PORT
  value: {{ include "streamlabel.port" . | quote }}
{{- with include "streamlabel.setting" (list . "model.cache_dir" "") }}
- name: STREAMLABEL_MODEL_CACHE_DIR
  value: {{ . | quote }}
{{- end }}
{{- if eq (include "streamlabel.workload" .) "StatefulSet" }}
# The pod's name survives a restart: with it the worker keeps its place in the group, and its
# successor fences it by the same transactional id.
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: STREAMLABEL_KAFKA_GROUP_INSTANCE_ID
  {{- $prefix := include "streamlabel.setting" (list . "kafka.group_instance_id" "") }}
  value: {{ printf "%s$(POD_NAME)" (ternary (print $prefix "-") "" (ne $prefix "")) | quote }}
{{- end }}
{{- if include "streamlabel.fetches" . }}
# The hub's cache, which the init container fills for the worker.
- name: HF_HOME
  value: /var/lib/streamlabel/hub
{{- end }}
{{- if .Values.secrets }}
- name: STREAMLABEL_SECRETS_DIR
  value: /etc/streamlabel/secrets
{{- end }}
{{- range .Values.secrets }}
{{- $path := include "streamlabel.secretPath" . }}
{{- if hasPrefix "files/" $path }}
- name: {{ base $path | quote }}
  value: /etc/streamlabel/secrets/{{ $path }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "streamlabel.volumeMounts" -}}
- name: settings
  mountPath: /etc/streamlabel/streamlabel.toml
  subPath: streamlabel.toml
  readOnly: true
{{- if .Values.secrets }}
- name: secrets
  mountPath: /etc/streamlabel/secrets
  readOnly: true
{{- end }}
- name: cache
  mountPath: /var/lib/streamlabel
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "streamlabel.volumes" -}}
- name: settings
  configMap:
    name: {{ include "streamlabel.fullname" . }}
{{- with .Values.secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret:
          name: {{ .secretName | quote }}
          items:
            - key: {{ .key | quote }}
              path: {{ include "streamlabel.secretPath" . }}
      {{- end }}
{{- end }}
- name: cache
  {{- with .Values.model.cache.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ . | quote }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.model.cache.sizeLimit | toJson }}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Requests default to the limits: a worker that has its cores to itself keeps its latency. */}}
{{- define "streamlabel.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- $limits := $resources.limits -}}
{{- if .Values.gpu.enabled -}}
{{- $_ := set $limits .Values.gpu.resource (.Values.gpu.count | toString) -}}
{{- end -}}
{{- if not $limits.memory -}}
{{- fail "resources.limits.memory is not set: without it, a worker that grows takes memory from its whole node" -}}
{{- end -}}
{{- if not (or $limits.cpu (include "streamlabel.setting" (list . "model.threads" ""))) -}}
{{- fail "resources.limits.cpu is not set: the worker starts one thread for each core of its limit, or of the whole node. Set the limit, or settings.model.threads" -}}
{{- end -}}
{{- $_ := set $resources "requests" (merge (default dict $resources.requests) $limits) -}}
{{- toYaml $resources -}}
{{- end -}}
