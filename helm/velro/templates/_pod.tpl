{{/* What Velro's pods are made of: environment, containers, volumes. */}}

{{/* The "restricted" Pod Security Standard, for a user and group. */}}
{{- define "velro.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
# A large volume is not walked through at every start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "velro.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "velro.container" -}}
image: {{ include "velro.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "velro.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* First lines of every pod's spec. No token: nothing here talks to Kubernetes. No service links: their variables would
     look like settings. */}}
{{- define "velro.podBase" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod goes: (dict "settings" .Values.api). */}}
{{- define "velro.placement" -}}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Connections of the bundled servers, which win over what the Secret says. */}}
{{- define "velro.bundledEnv" -}}
{{- if .Values.postgresql.enabled }}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ include "velro.fullname" . }}-postgresql, key: DATABASE_URL}}
{{- end }}
{{- if .Values.redis.enabled }}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ include "velro.fullname" . }}-redis, key: REDIS_URL}}
{{- end }}
{{- end -}}

{{/* The environment of a process that serves; what extraEnv names is its own: (dict "root" $ "role" "api" "settings" .Values.api). */}}
{{- define "velro.env" -}}
{{- $values := .root.Values -}}
{{- $env := dict
  "ENVIRONMENT" $values.environment
  "VELRO_ROLE" .role
  "HOST" $values.host
  "PORT" "8000"
  "METRICS_PORT" ($values.metrics.port | toString)
  "SERVICE_NAME" (include "velro.fullname" .root)
  "VELRO_DATA" "/data"
  "VELRO_PLUGIN_DIR" "/plugins"
  "VELRO_PROVIDERS" "/etc/velro/providers.toml"
  "VELRO_SHUTDOWN_DELAY_SECONDS" ($values.shutdown.delaySeconds | toString)
  "VELRO_SHUTDOWN_GRACE_SECONDS" ($values.shutdown.graceSeconds | toString)
  "LOG_LEVEL" $values.log.level
  "LOG_FORMAT" $values.log.format
  "TRUST_PROXY_HEADERS" (eq (toString $values.trustProxyHeaders) "auto" | ternary $values.ingress.enabled $values.trustProxyHeaders | toString)
  "PUBLIC_URL" (include "velro.publicUrl" .root)
  "OPERATOR_EMAILS" (join "," $values.operatorEmails)
  "CORS_ORIGINS" (join "," $values.corsOrigins)
  "SUPABASE_URL" $values.supabaseUrl
-}}
{{- if $values.tracing.endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" $values.tracing.endpoint -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER_ARG" ($values.tracing.sampleRatio | toString) -}}
{{- end -}}
{{- if include "velro.usesRedis" .root -}}
{{- $prefix := printf "velro:%s:%s:" .root.Release.Namespace (include "velro.fullname" .root) -}}
{{- $_ := set $env "VELRO_REDIS_PREFIX" ($values.redisPrefix | default $prefix) -}}
{{- end -}}
{{- if $values.velroToml -}}
{{- $_ := set $env "VELRO_CONFIG" "/etc/velro-config/velro.toml" -}}
{{- end -}}
{{- $extra := concat $values.extraEnv .settings.extraEnv -}}
{{- range $extra -}}
{{- $_ := unset $env .name -}}
{{- end -}}
{{- range $name, $value := $env }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- include "velro.bundledEnv" .root }}
{{- with $extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The environment of `velro migrate`: the database, and no more than its configuration is valid with. */}}
{{- define "velro.migrateEnv" -}}
- {name: ENVIRONMENT, value: {{ .Values.environment }}}
- {name: VELRO_DATA, value: /tmp}
{{- end -}}

{{/* The process: (dict "root" $ "role" "api" "settings" .Values.api). */}}
{{- define "velro.serveContainer" -}}
{{- $values := .root.Values -}}
{{- $servesApi := ne .role "worker" -}}
- name: velro
  {{- include "velro.container" .root | nindent 2 }}
  command: [/usr/local/bin/velro, serve]
  env:
    {{- include "velro.env" . | trim | nindent 4 }}
  {{- if include "velro.hasSecret" .root }}
  envFrom:
    - secretRef: {name: {{ include "velro.secretName" .root }}}
  {{- end }}
  ports:
    {{- if $servesApi }}
    - {name: http, containerPort: 8000}
    {{- end }}
    - {name: metrics, containerPort: {{ $values.metrics.port }}}
  # Five minutes for a database that starts too, and for the embedded one to migrate.
  startupProbe:
    httpGet: {path: /health, port: metrics}
    periodSeconds: 2
    timeoutSeconds: 3
    failureThreshold: 150
  # Looks at the process alone: a database that is away is no reason to restart anything.
  livenessProbe:
    httpGet: {path: /health, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 3
    failureThreshold: 3
  # Looks at the database and at the version of its schema, on the port that gets the requests.
  readinessProbe:
    httpGet: {path: /health/ready, port: {{ $servesApi | ternary "http" "metrics" }}}
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  resources:
    {{- toYaml .settings.resources | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /data}
    - {name: tmp, mountPath: /tmp}
    {{- if or $values.providers.registry $values.providers.existingConfigMap }}
    # The whole folder, no subPath: only so does an edit reach a running pod.
    - {name: providers, mountPath: /etc/velro, readOnly: true}
    {{- end }}
    {{- if $values.velroToml }}
    - {name: velro-toml, mountPath: /etc/velro-config, readOnly: true}
    {{- end }}
    {{- if or $values.plugins.images $values.plugins.existingClaim }}
    - {name: plugins, mountPath: /plugins, readOnly: true}
    {{- end }}
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What runs before the process: the schema of the bundled PostgreSQL, and the libraries. */}}
{{- define "velro.initContainers" -}}
{{- if eq (include "velro.migrationMethod" .) "init" }}
- name: migrate
  {{- include "velro.container" . | nindent 2 }}
  command: [/usr/local/bin/velro, migrate]
  env:
    {{- include "velro.migrateEnv" . | nindent 4 }}
    {{- include "velro.bundledEnv" . | trim | nindent 4 }}
  {{- if include "velro.hasSecret" . }}
  envFrom:
    - secretRef: {name: {{ include "velro.secretName" . }}}
  {{- end }}
  resources:
    {{- toYaml .Values.migration.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- if .Values.plugins.images }}
{{- $shipped := dict "name" "shipped" "image" (include "velro.image" .) }}
{{- range prepend .Values.plugins.images $shipped }}
- name: plugin-{{ .name }}
  image: {{ .image }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: {{ .command | default (list "/bin/sh" "-c" "cp /plugins/*.so /target/") | toJson }}
  securityContext:
    {{- include "velro.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml $.Values.plugins.resources | nindent 4 }}
  volumeMounts:
    - {name: plugins, mountPath: /target}
{{- end }}
{{- end }}
{{- end -}}

{{- define "velro.volumes" -}}
{{- $full := include "velro.fullname" . -}}
- name: data
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ include "velro.dataClaim" . }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if or .Values.providers.registry .Values.providers.existingConfigMap }}
- name: providers
  configMap: {name: {{ .Values.providers.existingConfigMap | default (printf "%s-providers" $full) }}}
{{- end }}
{{- if .Values.velroToml }}
- name: velro-toml
  configMap: {name: {{ $full }}-config}
{{- end }}
{{- if .Values.plugins.images }}
- name: plugins
  emptyDir: {}
{{- else if .Values.plugins.existingClaim }}
- name: plugins
  # Read-only at the claim, not only at the mount: else the kubelet would give the group the right to write, and Velro loads
  # nothing that others can write to.
  persistentVolumeClaim: {claimName: {{ .Values.plugins.existingClaim }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The template of a role's pods: (dict "root" $ "role" "api" "settings" .Values.api). */}}
{{- define "velro.podTemplate" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $selector := include "velro.selectorLabels" (dict "root" $root "component" .role) -}}
metadata:
  labels:
    {{- with .settings.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- $selector | nindent 4 }}
    # Every role's pods have it, and nothing else of the release: for scraping and network policies.
    velro/serves: "true"
    app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  annotations:
    {{- with .settings.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    # A change of these restarts the pods. providers.toml is not here: it is read again while they run.
    checksum/config: {{ $values.velroToml | sha256sum }}
    checksum/secrets: {{ list $values.secrets.env $values.postgresql.password $values.redis.password | toJson | sha256sum }}
spec:
  {{- include "velro.podBase" $root | nindent 2 }}
  serviceAccountName: {{ include "velro.serviceAccountName" $root }}
  # Velro ends by itself within its grace; the rest is for the kubelet.
  terminationGracePeriodSeconds: {{ add $values.shutdown.graceSeconds 10 }}
  securityContext:
    {{- include "velro.podSecurity" 65532 | nindent 4 }}
  {{- with include "velro.initContainers" $root | trim }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "velro.serveContainer" . | nindent 4 }}
  volumes:
    {{- include "velro.volumes" $root | nindent 4 }}
  {{- with include "velro.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if and (ne $values.mode "embedded") (ne .settings.topologySpread "none") }}
  topologySpreadConstraints:
    {{- range $key, $whenFull := dict "kubernetes.io/hostname" (eq .settings.topologySpread "required" | ternary "DoNotSchedule" "ScheduleAnyway") "topology.kubernetes.io/zone" "ScheduleAnyway" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: {{ $whenFull }}
      labelSelector:
        matchLabels:
          {{- $selector | nindent 10 }}
      # Pods of the version that is being replaced do not count.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end -}}
